#!/bin/sh
# PostgreSQL with the keys of this installation, which follow what is in the volume `keys`.
set -eu
from=/run/miiii/keys to=/run/postgresql-keys

copy_keys() {
  install -d -m 700 -o postgres "$to"
  for name in owner.password server.key server.crt; do install -m 600 -o postgres "$from/$name" "$to/$name"; done
}

# The password holds for a volume that is older than it, and the certificate that an invitation makes, at once.
follow_keys() {
  until pg_isready --quiet --username miiii --dbname miiii --host 127.0.0.1; do sleep 1; done
  psql --quiet --username miiii --dbname miiii <<'SQL'
\set password `cat /run/postgresql-keys/owner.password`
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
ALTER ROLE miiii PASSWORD :'password';
SQL
  while sleep 2; do
    cmp -s "$from/server.crt" "$to/server.crt" || { copy_keys && kill -HUP 1; }
  done
}

copy_keys
follow_keys &
exec docker-entrypoint.sh postgres -c config_file=/etc/miiii/postgresql.conf
