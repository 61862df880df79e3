#!/bin/bash
# Makes the images that compose files and Dockerfiles name, where no public
# registry can be reached: a Debian by debootstrap, and on it what Debian's
# packages have. What is there already is kept.
#
#   DOCKER_HOST=… images.sh                 base and the servers
#   DOCKER_HOST=… images.sh rust            this machine's Rust toolchain
#   DOCKER_HOST=… images.sh prebuilt ABAX   the binary ABAX in the place of that
set -euo pipefail
here=$(dirname "$0")
binary=${2:+$(realpath "$2")}
cd "$here"
PATH=/usr/sbin:/sbin:/usr/bin:/bin:$PATH

base=abax-test/debian:bookworm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

has() { docker image inspect "$1" >/dev/null 2>&1; }

# A Debian that is small, as debian:bookworm-slim is.
make_base() {
    local root=$work/root mirror try
    mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\).*/\2/p' \
        /etc/apt/sources.list.d/debian*.sources /etc/apt/sources.list 2>/dev/null | head -n 1 || true)
    for try in 1 2 3; do
        mkdir -p "$root"
        if debootstrap --variant=minbase --include=ca-certificates bookworm "$root" \
            "${mirror:-http://deb.debian.org/debian}" >"$work/log" 2>&1; then
            break
        fi
        [[ $try -lt 3 ]] || { tail -n 20 "$work/log" >&2; return 1; }
        echo "images.sh: debootstrap failed; trying again" >&2
        rm -rf "$root"
    done
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
        "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
    # Builds behind a proxy that opens TLS need this machine's authorities.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/machine-ca.crt"
    tar -C "$root" --numeric-owner --one-file-system -c . | docker import \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'CMD ["bash"]' - "$base" >/dev/null
}

build() {
    local name=$1 context=$2
    docker build --quiet --build-arg "BASE=$base" --tag "$name" "$context" >"$work/build" 2>&1 || {
        cat "$work/build" >&2
        return 1
    }
}

has "$base" || { echo "images.sh: making $base" >&2; make_base; }
if [[ ${1:-} == rust ]]; then
    if ! has abax-test/rust; then
        echo "images.sh: making abax-test/rust" >&2
        cp images/rust/Dockerfile "$work"
        cp -a "$(rustc --print sysroot)" "$work/toolchain"
        rm -rf "$work"/toolchain/share/doc
        build abax-test/rust "$work"
    fi
    exit
fi
if [[ ${1:-} == prebuilt ]]; then
    cp images/prebuilt/* "$work"
    cp "$binary" "$work/abax"
    build abax-test/prebuilt "$work"
    exit
fi
for image in postgres rabbitmq haproxy registry; do
    has "abax-test/$image" && continue
    echo "images.sh: making abax-test/$image" >&2
    build "abax-test/$image" "images/$image"
done
