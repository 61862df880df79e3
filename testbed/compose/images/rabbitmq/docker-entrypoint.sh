#!/bin/bash
# Becomes the broker, as its user; RABBITMQ_DEFAULT_USER and _PASS are its own.
set -euo pipefail
if [[ $(id -u) -eq 0 ]]; then
    chown rabbitmq: /var/lib/rabbitmq
    export HOME=/var/lib/rabbitmq
    # Logs to the container's output, which stays open for the other user.
    export RABBITMQ_LOGS=-
    exec setpriv --reuid rabbitmq --regid rabbitmq --init-groups "$0" "$@"
fi
exec /usr/lib/rabbitmq/bin/"$@"
