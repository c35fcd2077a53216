#!/bin/sh
# Start PostgreSQL with this installation's settings and keys, and reload the keys when they change.
set -eu
settings=/etc/miiii keys=/run/miiii/keys config=/run/postgresql-config socket=/run/miiii/socket

# Copy the files, because PostgreSQL's user cannot read the originals. Keys belong to the coordinator's user, and a
# repository cloned under umask 077 belongs to the user who cloned it.
copy_config() {
  install -d -m 700 -o postgres "$config"
  for file in "$keys/server.key" "$keys/server.crt" "$settings/postgresql.conf" "$settings/pg_hba.conf"; do
    install -m 600 -o postgres "$file" "$config/${file##*/}"
  done
}

follow_keys() {
  while sleep 2; do
    cmp -s "$keys/server.crt" "$config/server.crt" || { copy_config && kill -HUP 1; }
  done
}

copy_config
# Only PostgreSQL may write here, and only the coordinator's group (see Dockerfile) may connect.
install -d -m 710 -o postgres -g 10001 "$socket"
rm -f "$socket"/.s.PGSQL.* # left by a server that was killed
follow_keys &
# The image requires a password for a new database. Nobody knows this one, and pg_hba.conf admits nobody with it.
POSTGRES_PASSWORD=$(head -c 32 /dev/urandom | base64)
export POSTGRES_PASSWORD
exec docker-entrypoint.sh postgres -c "config_file=$config/postgresql.conf"
