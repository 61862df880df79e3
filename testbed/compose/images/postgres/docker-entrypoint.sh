#!/bin/bash
# Makes the database in an empty volume, then becomes the server.
# POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE.
set -euo pipefail
if [[ $(id -u) -eq 0 ]]; then
    if [[ -n ${POSTGRES_PASSWORD_FILE:-} ]]; then
        POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
        export POSTGRES_PASSWORD
    fi
    mkdir -p "$PGDATA" /run/postgresql
    chown postgres: "$PGDATA" /run/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
user=${POSTGRES_USER:-postgres}
if [[ ! -e $PGDATA/PG_VERSION ]]; then
    initdb --username "$user" --pwfile <(printf '%s\n' "${POSTGRES_PASSWORD:?}") \
        --auth-local trust --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait start --options "-c listen_addresses="
    psql --username "$user" --dbname postgres --command "create database \"${POSTGRES_DB:-$user}\""
    pg_ctl --wait stop --mode fast
fi
unset POSTGRES_PASSWORD
exec "$@" -c listen_addresses='*'
