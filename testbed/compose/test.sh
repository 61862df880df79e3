#!/bin/bash
# Starts the stack of docker-compose.yml for real and does to it what a site
# meets: the quickstart of README.md, an API process and a host that are killed,
# a rolling restart, a restore from a backup. No accepted message may be lost.
#
#   test.sh ABAX      ABAX is the built binary that goes into the image
#
# The docker daemon and the images of the servers are the test's own, and stay
# in target/compose for the next run; all else is removed.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
here=$repository/testbed/compose
abax=$(realpath "${1:?the built abax}")
state=$repository/target/compose
PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin:$PATH
export DOCKER_HOST=unix://$state/docker.sock
export COMPOSE_PROJECT_NAME=abax
export ABAX_IMAGE=abax-test/abax POSTGRES_IMAGE=abax-test/postgres \
    RABBITMQ_IMAGE=abax-test/rabbitmq HAPROXY_IMAGE=abax-test/haproxy \
    REGISTRY_IMAGE=abax-test/registry
server=http://localhost:8000

say() { printf '%s compose-test: %s\n' "$(date +%T)" "$*" >&2; }
fail() {
    say "FAILED: $*"
    compose ps >&2 || true
    compose logs --no-color --tail 30 api1 api2 worker1 worker2 front migrate 2>/dev/null >&2 || true
    exit 1
}
compose() { (cd "$site" && docker-compose "$@"); }
# Where the stack's ports are published.
at_site() { "$here/daemon.sh" run "$state" "$@"; }

# Tries until it succeeds, for SECONDS at most.
within() {
    local seconds=$1 end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [[ $SECONDS -lt $end ]] || fail "not within $seconds s: $*"
        sleep 0.3
    done
}

site=$(mktemp -d /var/tmp/abax-compose-XXXXXX)
clean_up() {
    say "taking it down"
    compose down --volumes --timeout 10 >/dev/null 2>&1 || true
    "$here/daemon.sh" stop "$state"
    rm -rf "$site"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

say "images"
"$here/daemon.sh" start "$state"
"$here/images.sh"
"$here/images.sh" prebuilt "$abax"
docker build --quiet --build-arg RUST_IMAGE=abax-test/prebuilt \
    --build-arg BASE_IMAGE=abax-test/debian:bookworm \
    --tag "$ABAX_IMAGE" "$repository" >/dev/null 2>"$site/build" || { cat "$site/build" >&2; exit 1; }

say "up"
cp -r "$repository/docker-compose.yml" "$repository/deploy" "$site"
at_site "$site/deploy/compose/setup.sh" >/dev/null
[[ $(stat -c %a "$site"/secrets/*) == $'600\n600\n600' ]] || fail "secrets that others may read"
compose up -d >"$site/log" 2>&1 || { cat "$site/log" >&2; fail "it did not come up"; }
export PATH=$site/bin:$PATH ABAX_API_SIGNING_KEY_FILE=$site/secrets/signing_key
mkdir "$site/bin"
cp "$abax" "$site/bin/abax"
within 120 at_site curl --fail --silent --max-time 3 "$server/readyz"

# The image that the README builds, by docker this time, for all hosts.
mkdir -p "$site/busybox/bin" "$site/busybox/etc" "$site/busybox/tmp" "$site/hello"
cp /bin/busybox "$site/busybox/bin/"
for name in sh echo env cat ls sleep true; do ln -s busybox "$site/busybox/bin/$name"; done
echo root:x:0:0:root:/:/bin/sh >"$site/busybox/etc/passwd"
tar -C "$site/busybox" -c . | docker import - busybox >/dev/null
sed -n "/^cat > \/tmp\/hello\/Dockerfile/,/^END$/p" "$repository/README.md" | sed '1d;$d' >"$site/hello/Dockerfile"
sed -n "/^cat > \/tmp\/hello\/hello.sh/,/^END$/p" "$repository/README.md" | sed '1d;$d' >"$site/hello/hello.sh"
docker build --quiet --tag localhost:5000/library/hello "$site/hello" >/dev/null 2>&1
docker push --quiet localhost:5000/library/hello >/dev/null

say "the quickstart, as it stands in README.md"
# The commands of its chapter on functions, but for the start of `abax serve`.
awk '/^### /{ on = ($0 == "### Functions") } on && /^```$/ { code = 0 }
     on && code && !/^abax serve/ { print } on && /^```sh$/ { code = 1 }' \
    "$repository/README.md" >"$site/quickstart.sh"
grep -q 'abax actor send --wait greeter' "$site/quickstart.sh" || fail "no quickstart in README.md"
at_site bash -eu "$site/quickstart.sh" >"$site/quickstart.log" 2>&1 ||
    { cat "$site/quickstart.log" >&2; fail "the quickstart"; }
grep -q 'Contents of MSG: hello from the command line' "$site/quickstart.log" || fail "no log in the quickstart"
# By the broker, not by hosts that look for themselves.
compose exec -T rabbitmq rabbitmqctl --quiet list_queues name type >"$site/queues"
grep -q '^abax\.default\..*quorum' "$site/queues" || fail "no queue: $(cat "$site/queues")"

TOKEN=$(compose run --rm -T token 2>/dev/null)
export TOKEN ABAX_TOKEN=$TOKEN
at_site abax actor executions hello >/dev/null || fail "the token of the stack"

# Sends NUMBER messages, and keeps what was accepted: execution id and text.
send() {
    local actor=$1 from=$2 to=$3 n answer id
    for n in $(seq "$from" "$to"); do
        answer=$(at_site curl --silent --max-time 20 --header "Authorization: Bearer $TOKEN" \
            --data "message=message-$n" "$server/actors/v2/$actor/messages") || continue
        id=$(sed -n 's/.*"executionId": *"\([^"]*\)".*/\1/p' <<<"$answer")
        [[ -z $id ]] || echo "$id message-$n"
    done
}

# Whether each execution in the file is complete, with its own message in the log.
settled() {
    local actor=$1 file=$2 id text answer
    while read -r id text; do
        answer=$(at_site curl --silent --max-time 20 --header "Authorization: Bearer $TOKEN" \
            "$server/actors/v2/$actor/executions/$id") || return 1
        grep -q '"status": *"COMPLETE"' <<<"$answer" || return 1
        answer=$(at_site curl --silent --max-time 20 --header "Authorization: Bearer $TOKEN" \
            "$server/actors/v2/$actor/executions/$id/logs") || return 1
        grep -q "MSG: $text\\b" <<<"$answer" || return 1
    done <"$file"
}

kill_hard() { kill -KILL "$(docker inspect --format '{{.State.Pid}}' "abax_$1_1")"; }
is_running() { [[ $(docker inspect --format '{{.State.Running}}' "abax_$1_1") == true ]]; }

say "one api and one worker are killed under load"
cat >"$site/hello/hello.sh" <<'END'
sleep 1
echo "Contents of MSG: $MSG"
END
docker build --quiet --tag localhost:5000/slow "$site/hello" >/dev/null 2>&1
docker push --quiet localhost:5000/slow >/dev/null
# Two actors, so that both hosts have work.
slow=$(at_site abax actor create --name slow localhost:5000/slow)
send "$slow" 1 80 >"$site/accepted" &
sender=$!
sleep 1
kill_hard api1
sleep 1
kill_hard worker1
wait "$sender"
accepted=$(wc -l <"$site/accepted")
[[ $accepted -ge 60 ]] || fail "only $accepted of 80 messages were accepted with one api gone"
within 30 is_running api1
within 30 is_running worker1
within 180 settled "$slow" "$site/accepted"
say "$accepted of 80 were accepted, and all of those are settled"

say "a rolling restart under load"
send "$slow" 101 180 >"$site/accepted" &
sender=$!
for name in api1 api2 worker1 worker2; do
    compose up -d --no-deps --force-recreate "$name" >/dev/null 2>&1
    within 60 is_running "$name"
    if [[ $name == api* ]]; then
        within 60 at_site curl --fail --silent --max-time 3 "$server/readyz"
        within 60 eval "[[ \$(docker inspect --format '{{.State.Health.Status}}' abax_${name}_1) == healthy ]]"
        # One more round of the front's checks.
        sleep 3
    fi
done
wait "$sender"
accepted=$(wc -l <"$site/accepted")
[[ $accepted -eq 80 ]] || fail "only $accepted of 80 messages were accepted during a rolling restart"
within 180 settled "$slow" "$site/accepted"
say "all of 80 were accepted and are settled"

say "a backup of the live database, and a new site from it"
compose stop worker1 worker2 >/dev/null 2>&1
send "$slow" 201 210 >"$site/waiting"
compose exec -T postgres pg_dump --username abax --format custom abax >"$site/abax.dump"
compose down --volumes >/dev/null 2>&1
compose up -d postgres >/dev/null 2>&1
within 60 compose exec -T postgres pg_isready --quiet --host 127.0.0.1
compose exec -T postgres pg_restore --username abax --dbname abax --exit-on-error <"$site/abax.dump"
compose up -d >/dev/null 2>&1
docker push --quiet localhost:5000/slow >/dev/null
within 120 at_site curl --fail --silent --max-time 3 "$server/readyz"
within 180 settled "$slow" "$site/waiting"
# What had ended before is there as well.
settled "$slow" "$site/accepted" || fail "executions from before the backup are not there"
say "what waited in the backup was executed, what had ended is there"

compose exec -T api1 abax admin doctor >"$site/doctor" 2>&1 || fail "the doctor: $(cat "$site/doctor")"

say "down"
compose down --volumes >/dev/null 2>&1
[[ -z $(docker ps --all --quiet) ]] || fail "containers are left: $(docker ps --all)"
volumes=$(docker volume ls --quiet --filter label=com.docker.compose.project=abax)
[[ -z $volumes ]] || fail "volumes are left: $volumes"
say "ok, after $SECONDS s"
