-- Run once, by the postgres image as its superuser, when its data is made: Halligan's own database with its two roles, and
-- the orders database as its owner would prepare it for Halligan and for OpenBao (docs/providers.md has the same statements).
-- Passwords come from the files that the setup wrote.
SET log_min_error_statement = panic;

\set owner_password `cat /run/generated/halligan_owner`
\set app_password `cat /run/generated/halligan_app`
\set target_password `cat /run/generated/halligan_target`
\set vault_password `cat /run/generated/vault_orders`
\set probe_password `cat /run/generated/halligan_probe`

CREATE ROLE halligan_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE halligan_app LOGIN PASSWORD :'app_password';
CREATE DATABASE halligan OWNER halligan_owner;
REVOKE CONNECT, TEMPORARY ON DATABASE halligan FROM PUBLIC;
GRANT CONNECT ON DATABASE halligan TO halligan_app;

-- Halligan's own role at the target, OpenBao's, and the probe: none of them can read a row of orders.
CREATE ROLE halligan_target LOGIN CREATEROLE PASSWORD :'target_password';
CREATE ROLE vault_orders LOGIN CREATEROLE PASSWORD :'vault_password';
CREATE ROLE halligan_probe LOGIN PASSWORD :'probe_password' CONNECTION LIMIT 40;
CREATE ROLE halligan_leftovers NOLOGIN;
CREATE ROLE orders_ro NOLOGIN;
CREATE ROLE orders_rw NOLOGIN;

CREATE DATABASE orders;
REVOKE CONNECT, TEMPORARY ON DATABASE orders FROM PUBLIC;
GRANT CONNECT ON DATABASE orders TO orders_ro, orders_rw, halligan_target, vault_orders, halligan_probe;
GRANT orders_ro, orders_rw TO halligan_target WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
GRANT orders_ro TO vault_orders WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
GRANT halligan_leftovers TO halligan_target, vault_orders;
GRANT pg_signal_backend TO halligan_probe;

\connect orders

CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, country text NOT NULL);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, placed_at timestamptz NOT NULL, total_cents int NOT NULL);
INSERT INTO customers SELECT n, 'Customer ' || n, (ARRAY['DE', 'FR', 'KE'])[1 + n % 3] FROM generate_series(1, 40) n;
INSERT INTO orders SELECT n, 1 + n % 40, timestamptz '2026-01-01 00:00Z' + n * interval '1 hour', 100 * n FROM generate_series(1, 400) n;
GRANT USAGE ON SCHEMA public TO orders_ro, orders_rw;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO orders_ro;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO orders_rw;
