"""Brings the rights in a database to what `migrations.grants` declares."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

from migrations.grants import API, EVERY, FUNCTIONS, SERVICE, TABLES, WORKER, Rights

OPEN_TO_ALL = "public"
"""How Postgres calls the rights that every role has."""

MAINTAIN_SINCE = 170_000
"""The version of Postgres that has the right to analyze the tables of others."""


class Grant(NamedTuple):
    """One right of one role. `column` is empty for a right to the whole object."""

    role: str
    privilege: str
    kind: str
    """`TABLE`, `FUNCTION`, `SCHEMA` or `DATABASE`."""

    name: str
    """As GRANT wants it: quoted, and with the argument types of a function."""

    column: str = ""


def require_plain_owner(connection: Connection) -> None:
    """Refuse to make tables and functions as a superuser: one of the functions runs with the rights
    of its owner.

    Raises:
        RuntimeError: this is a superuser's connection, or one of somebody who owns nothing here.
    """
    name, is_superuser, may_create = connection.execute(text(WHO)).one()
    connection.rollback()
    if is_superuser:
        raise RuntimeError(
            f"{name} is a superuser, and the owner of the tables must not be one. Run "
            "migrations/roles.sql as this role, let lethe_owner log in, and run the migrations as "
            'lethe_owner: docs/operators.md, "Database roles".'
        )
    if not may_create:
        raise RuntimeError(
            f"{name} may not create tables in this database. Run migrations/roles.sql as a "
            'superuser, and the migrations as lethe_owner: docs/operators.md, "Database roles".'
        )


def settle(connection: Connection) -> None:
    """Take from the service's roles, and from everyone, what is not declared; give what is missing.

    To be run by the owner of the tables, in a transaction. Rights of other roles are not touched.

    Raises:
        RuntimeError: everyone may still create objects; the owner of the database has to end that.
    """
    for each in sorted(present(connection) - declared(connection)):
        connection.execute(text(f"REVOKE {_what(each)} FROM {_whom(each)} CASCADE"))
    # To take a right to a table takes those to its columns along.
    for each in sorted(declared(connection) - present(connection)):
        connection.execute(text(f"GRANT {_what(each)} TO {_whom(each)}"))
    left = [grant for grant in present(connection) if grant.privilege in ("TEMPORARY", "CREATE")]
    if left:
        raise RuntimeError(
            "Everyone who can connect to this database may create "
            + " and ".join(sorted({_creates(grant) for grant in left}))
            + ", and only the owner of the database can end that. Run migrations/roles.sql as a "
            'superuser, then this again: docs/operators.md, "Database roles".'
        )


def _what(grant: Grant) -> str:
    column = f' ("{grant.column}")' if grant.column else ""
    return f"{grant.privilege}{column} ON {grant.kind} {grant.name}"


def _whom(grant: Grant) -> str:
    return "PUBLIC" if grant.role == OPEN_TO_ALL else grant.role


def _creates(grant: Grant) -> str:
    return "temporary tables" if grant.privilege == "TEMPORARY" else f"objects in {grant.name}"


def declared(connection: Connection) -> set[Grant]:
    """The rights that the service's roles are to have; everyone has none.

    Which columns there are, and which the database fills in, is read from the database.
    """
    schema = str(connection.scalar(text("SELECT quote_ident(current_schema())")))
    found = {Grant(role, "USAGE", "SCHEMA", schema) for role in (API, WORKER)}
    computed = filled_in(connection)
    version = connection.scalar(text("SELECT current_setting('server_version_num')::int")) or 0
    for name, table in TABLES.items():
        for role, may in table.rights():
            found |= _of_table(role, f"{schema}.{name}", may, computed.get(name, {}))
            if may.analyze and version >= MAINTAIN_SINCE:
                found.add(Grant(role, "MAINTAIN", "TABLE", f"{schema}.{name}"))
    for signature, name in connection.execute(text(FUNCTIONS_OF_SCHEMA)):
        found |= {Grant(role, "EXECUTE", "FUNCTION", signature) for role in FUNCTIONS.get(name, ())}
    return found


def _of_table(role: str, name: str, may: Rights, columns: Mapping[str, bool]) -> set[Grant]:
    read = [""] if may.select == EVERY else may.select.split()
    found = {Grant(role, "SELECT", "TABLE", name, column) for column in read}
    found |= {Grant(role, "UPDATE", "TABLE", name, column) for column in may.update.split()}
    if may.insert:
        own = [column for column, is_filled_in in columns.items() if not is_filled_in]
        found |= {Grant(role, "INSERT", "TABLE", name, column) for column in own}
    if may.delete:
        found.add(Grant(role, "DELETE", "TABLE", name))
    return found


def filled_in(connection: Connection) -> dict[str, dict[str, bool]]:
    """The columns of each table, and whether the database computes their values. A constant that
    stands in for a missing value is not computed.
    """
    found: dict[str, dict[str, bool]] = {}
    for table, column, is_filled_in in connection.execute(text(COLUMNS)):
        found.setdefault(table, {})[column] = is_filled_in
    return found


def present(connection: Connection) -> set[Grant]:
    """The rights that the service's roles, and everyone, have in this database and schema now.

    Left out is what everyone has by default and should: to connect, and to look up names.
    """
    rows = connection.execute(text(RIGHTS), {"roles": list(SERVICE), "everyone": OPEN_TO_ALL})
    return {Grant(*row) for row in rows}


WHO = """
SELECT rolname, rolsuper, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""

COLUMNS = """
SELECT relname, attname,
       attidentity <> '' OR attgenerated <> '' OR coalesce(adbin::text NOT LIKE '{CONST%', false)
FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class ON pg_class.oid = attrelid
     LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
  AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
ORDER BY relname, attnum
"""

FUNCTIONS_OF_SCHEMA = """
SELECT format('%I.%I(%s)', current_schema(), proname, pg_get_function_identity_arguments(oid)),
       proname
FROM pg_catalog.pg_proc
WHERE pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
"""

RIGHTS = """
WITH here AS (
    SELECT oid AS schema FROM pg_catalog.pg_namespace WHERE nspname = current_schema()
), objects AS (
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
           format('%I.%I', current_schema(), relname) AS name, '' AS column_name,
           coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
                                       relowner)) AS acl
    FROM pg_catalog.pg_class, here
    WHERE relnamespace = schema AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'TABLE', format('%I.%I', current_schema(), relname), attname, attacl
    FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class ON pg_class.oid = attrelid, here
    WHERE relnamespace = schema AND attacl IS NOT NULL AND NOT attisdropped
    UNION ALL
    SELECT 'FUNCTION',
           format('%I.%I(%s)', current_schema(), proname, pg_get_function_identity_arguments(oid)),
           '', coalesce(proacl, acldefault('f', proowner))
    FROM pg_catalog.pg_proc, here WHERE pronamespace = schema
    UNION ALL
    SELECT 'SCHEMA', quote_ident(nspname), '', coalesce(nspacl, acldefault('n', nspowner))
    FROM pg_catalog.pg_namespace, here WHERE oid = schema
    UNION ALL
    SELECT 'DATABASE', quote_ident(datname), '', coalesce(datacl, acldefault('d', datdba))
    FROM pg_catalog.pg_database WHERE datname = current_database()
), held AS (
    SELECT CASE grantee WHEN 0 THEN :everyone ELSE pg_get_userbyid(grantee)::text END AS role,
           privilege_type AS privilege, kind, name, column_name
    FROM objects, aclexplode(acl)
)
SELECT role, privilege, kind, name, column_name FROM held
WHERE (role = ANY(:roles) OR role = :everyone)
  AND NOT (role = :everyone AND privilege = 'CONNECT')
  AND NOT (role = :everyone AND privilege = 'USAGE' AND kind = 'SCHEMA')
"""
