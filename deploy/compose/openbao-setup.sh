#!/bin/sh
# Prepares OpenBao for Halligan, as docs/providers.md does: the connection to the orders database, the role whose users people
# get, Halligan's own login by JWT, and the rights that `halligan print vault-setup` printed for this config. Run at each start;
# what is there already stays, or becomes what is said here.
set -eu
generated=/run/generated

BAO_TOKEN=$(bao write -field=token auth/jwt/login role=setup jwt=@"$generated/setup.jwt")
export BAO_TOKEN
trap 'bao token revoke -self >/dev/null' EXIT

bao read sys/mounts/database >/dev/null 2>&1 || bao secrets enable database
bao write database/config/orders - <"$generated/orders.json"
bao write database/roles/orders-ro - <<'JSON'
{
  "db_name": "orders",
  "default_ttl": "2m",
  "max_ttl": "8h",
  "creation_statements": [
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT 10 IN ROLE orders_ro"
  ],
  "revocation_statements": [
    "ALTER ROLE \"{{name}}\" NOLOGIN",
    "GRANT \"{{name}}\" TO CURRENT_USER WITH INHERIT TRUE, SET TRUE",
    "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = '{{name}}'",
    "REASSIGN OWNED BY \"{{name}}\" TO halligan_leftovers",
    "DROP OWNED BY \"{{name}}\"",
    "DROP ROLE \"{{name}}\""
  ]
}
JSON
bao write auth/jwt/role/halligan role_type=jwt user_claim=sub bound_audiences=openbao bound_subject=halligan \
  token_policies=halligan-orders-vault token_no_default_policy=true token_ttl=1h
sh "$generated/rights.sh"
