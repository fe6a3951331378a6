-- What a superuser, or who owns the database and may create roles, does once before the
-- migrations, in the database that is Lethe's alone:
--
--   psql --dbname lethe --file migrations/roles.sql
--
-- It makes the roles, and gives `lethe_owner` all that is in the database. It may be repeated, and
-- brings a database of an earlier version, whose owner was a superuser, to the same state. Nobody
-- can log in as one of these roles until it is allowed to:
--
--   ALTER ROLE lethe_owner LOGIN PASSWORD '…';

DO $$
DECLARE
    wanted text;
    command text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['lethe_owner', 'lethe_api', 'lethe_worker', 'lethe_app'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I', wanted);
        ELSIF EXISTS (
            SELECT FROM pg_catalog.pg_roles
            WHERE rolname = wanted AND (
                rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls
            )
        ) THEN
            EXECUTE pg_catalog.format(
                'ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS',
                wanted
            );
        END IF;
    END LOOP;
    -- For those who give all processes one URL. It has no rights of its own.
    GRANT lethe_api, lethe_worker TO lethe_app;

    -- Where nobody is a superuser, as in many hosted databases, whoever may create roles gives the
    -- owner what it has as a member of it.
    IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        EXECUTE pg_catalog.format('GRANT lethe_owner TO %I', current_user);
    END IF;
    EXECUTE pg_catalog.format(
        'ALTER DATABASE %I OWNER TO lethe_owner', pg_catalog.current_database()
    );
    EXECUTE pg_catalog.format(
        'REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', pg_catalog.current_database()
    );
    IF (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace
        WHERE nspname = 'public') NOT IN ('pg_database_owner', 'lethe_owner') THEN
        ALTER SCHEMA public OWNER TO lethe_owner;
    END IF;
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    FOR command IN
        SELECT pg_catalog.format(
            'ALTER %s %I.%I OWNER TO lethe_owner',
            CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, nspname, relname
        )
        FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace space ON space.oid = relnamespace
        WHERE nspname = 'public' AND relkind IN ('r', 'v')
          AND pg_catalog.pg_get_userbyid(relowner) <> 'lethe_owner'
        UNION ALL
        SELECT pg_catalog.format(
            'ALTER ROUTINE %I.%I(%s) OWNER TO lethe_owner',
            nspname, proname, pg_catalog.pg_get_function_identity_arguments(pg_proc.oid)
        )
        FROM pg_catalog.pg_proc JOIN pg_catalog.pg_namespace space ON space.oid = pronamespace
        WHERE nspname = 'public' AND pg_catalog.pg_get_userbyid(proowner) <> 'lethe_owner'
        UNION ALL
        -- What an earlier owner would have granted on tables to come.
        SELECT DISTINCT pg_catalog.format(
            'ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA public '
            'REVOKE ALL ON TABLES FROM lethe_app',
            pg_catalog.pg_get_userbyid(defaclrole)
        )
        FROM pg_catalog.pg_default_acl JOIN pg_catalog.pg_namespace space
             ON space.oid = defaclnamespace
        WHERE nspname = 'public' AND pg_catalog.pg_get_userbyid(defaclrole) <> 'lethe_owner'
    LOOP
        EXECUTE command;
    END LOOP;
END $$;
