-- Run by `roles` at every start: makes the roles and lets them log in with the passwords in .env.
-- psql reads those from its environment, so that they stand in no list of processes.
\set ON_ERROR_STOP on
\ir roles.sql
\getenv owner LETHE_OWNER_PASSWORD
\getenv api LETHE_API_PASSWORD
\getenv worker LETHE_WORKER_PASSWORD
ALTER ROLE lethe_owner LOGIN PASSWORD :'owner';
ALTER ROLE lethe_api LOGIN PASSWORD :'api';
ALTER ROLE lethe_worker LOGIN PASSWORD :'worker';
-- Under this one all processes of earlier versions logged in.
ALTER ROLE lethe_app NOLOGIN PASSWORD NULL;
