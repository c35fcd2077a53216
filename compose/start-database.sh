#!/bin/sh
# PostgreSQL with TLS alone: by settings of the command line, so that a volume made before them has them, too.
set -eu

install_certificate() {
  install -d -m 700 -o postgres /run/postgresql-tls
  install -m 600 -o postgres /run/miiii/keys/server.key /run/postgresql-tls/server.key
  install -m 600 -o postgres /run/miiii/keys/server.crt /run/postgresql-tls/server.crt
}

# An invitation makes a new certificate; it is taken without a restart.
watch_certificate() {
  while sleep 2; do
    cmp -s /run/miiii/keys/server.crt /run/postgresql-tls/server.crt || { install_certificate && kill -HUP 1; }
  done
}

install_certificate
watch_certificate &
exec docker-entrypoint.sh postgres \
  -c ssl=on -c ssl_cert_file=/run/postgresql-tls/server.crt -c ssl_key_file=/run/postgresql-tls/server.key \
  -c ssl_min_protocol_version=TLSv1.2 -c hba_file=/etc/miiii/pg_hba.conf -c password_encryption=scram-sha-256 "$@"
