#!/bin/sh
# The main job from nothing to an answer: an image classifier as an actor.
#
#   make demo                      builds abax and runs this
#   examples/demo.sh PATH/TO/abax  runs it with a binary that is there already
#
# Everything that it makes lies in one directory ($ABAX_ROOT, by default
# /var/lib/abax-demo), so a second run finds the images and is done in seconds.
set -eu
cd "$(dirname "$0")/.."
ABAX=$(realpath "${1:-target/release/abax}")
export ABAX ABAX_ROOT="${ABAX_ROOT:-/var/lib/abax-demo}"
# Behind a TLS proxy, builds and executions need the CA bundle of this machine.
if [ -z "${ABAX_CA_BUNDLE:-}" ] && [ -s /etc/ssl/certs/ca-certificates.crt ]; then
    export ABAX_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
fi
mkdir -p "$ABAX_ROOT"
work=$(mktemp -d)
serve= photos=
stop() {
    trap - EXIT INT TERM
    [ -z "$photos" ] || kill "$photos" 2>/dev/null || true
    [ -z "$serve" ] || { kill "$serve" 2>/dev/null && wait "$serve" || true; }
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
abax() { printf '\033[2m$ abax %s\033[0m\n' "$*"; "$ABAX" "$@"; }

step "A photo to classify, served on this machine's loopback"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
python3 -m http.server --bind 127.0.0.1 --directory examples/classifier/photos "$port" >"$work/photos.log" 2>&1 &
photos=$!
echo "examples/classifier/photos at http://127.0.0.1:$port"

step "1. Start the service: API, worker, database and queue in one process"
# An execution cannot reach this machine's own ports, except those named here.
echo "$ abax serve --listen 127.0.0.1:0 --host-port $port &"
"$ABAX" serve --listen 127.0.0.1:0 --host-port "$port" >"$work/serve.log" 2>&1 &
serve=$!
url=
while [ -z "$url" ]; do
    url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$work/serve.log" | head -n 1 || true)
    kill -0 "$serve" 2>/dev/null || { cat "$work/serve.log" >&2; exit 1; }
    [ -n "$url" ] || sleep 0.05
done
export ABAX_SERVER="$url"
echo "listening at $url"
ABAX_TOKEN=$("$ABAX" token)
export ABAX_TOKEN

step "2. Build the image from its Dockerfile"
base=$(sh examples/base/python.sh)
abax build --build-arg "BASE=$base" -t classifier examples/classifier

step "3. Register it as an actor"
if ! "$ABAX" actor show classifier >/dev/null 2>&1; then
    abax actor create --name classifier classifier
else
    echo "The actor classifier is there already."
fi

step "4. Send it the address of a photo, and wait for what it says"
abax actor send --wait classifier "http://host.abax.internal:$port/cat.jpg"
"$ABAX" actor logs classifier | grep -q '^tiger cat (score = 0\.39' || {
    echo "The answer is not the expected one, tiger cat (score = 0.39141)." >&2
    exit 1
}

step "What to try next"
cat <<NEXT
  export ABAX_ROOT=$ABAX_ROOT
  $ABAX serve --host-port $port &
  export TOKEN=\$($ABAX token)
  curl -H "Authorization: Bearer \$TOKEN" http://127.0.0.1:8000/actors/v2
  $ABAX run --rm -it $base python3
The tour in README.md shows each step. Everything is in $ABAX_ROOT;
nothing of this demo is running any more.
NEXT
