-- Two roles for RelStorage.  Run once by an administrator:  psql -f roles.sql postgres
--
-- The tables belong to shop_owner, who makes them (remotetask init) and packs.
-- Workers and the application are shop_worker, who can change what is in them and nothing else.

CREATE ROLE shop_owner LOGIN;
CREATE ROLE shop_worker LOGIN;
CREATE DATABASE shop OWNER shop_owner TEMPLATE template0 ENCODING 'UTF8';

\connect shop

REVOKE ALL ON DATABASE shop FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO shop_owner;

-- TEMPORARY: RelStorage collects what a transaction writes in a temporary table.
GRANT CONNECT, TEMPORARY ON DATABASE shop TO shop_worker;
GRANT USAGE ON SCHEMA public TO shop_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO shop_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA public
    GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO shop_worker;
