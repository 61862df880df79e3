#!/bin/sh
# Makes what the compose file wants on this machine: secrets/ with passwords and
# the keys, readable for their owner alone, and .env with the machine's
# address. What is there already is kept, so it may run again.
set -eu
umask 077
cd "$(dirname "$0")/../.."

mkdir -p secrets
random() { od -An -N "$1" -t x1 /dev/urandom | tr -d ' \n'; }
for name in database_password queue_password; do
    [ -e "secrets/$name" ] || random 24 >"secrets/$name"
done
[ -e secrets/signing_key ] || head -c 32 /dev/urandom >secrets/signing_key
[ -e secrets/secret_keys ] || head -c 32 /dev/urandom | base64 >secrets/secret_keys

# The processes without root run as whom the secrets belong to: you, or a user
# of their own where root sets this up.
if [ "$(id -u)" -eq 0 ]; then
    user=10001:10001
    chown -R "$user" secrets
else
    user=$(id -u):$(id -g)
fi

if [ ! -e .env ]; then
    address=$(ip -4 route get 192.0.2.1 2>/dev/null |
        sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -n 1)
    # The resolvers behind a local one, which containers cannot ask.
    resolv=/etc/resolv.conf
    [ ! -e /run/systemd/resolve/resolv.conf ] || resolv=/run/systemd/resolve/resolv.conf
    cat >.env <<END
# Made by deploy/compose/setup.sh; change it as you like.
ABAX_USER=$user
# The address at which users and executions reach the site.
ABAX_PUBLIC_URL=http://${address:-localhost}:8000
# The resolvers of executions.
ABAX_RESOLV_CONF=$resolv
END
fi
echo "secrets/ and .env are there; next: docker compose up -d"
