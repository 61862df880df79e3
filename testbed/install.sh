#!/bin/bash
# Installs the Debian packages that tests, demo and benchmarks use as servers
# and peers: only those that are missing, without starting any service.
# When all is there it is silent and needs no network.
set -euo pipefail

# command:package
wanted=(
    dockerd:docker.io
    docker-compose:docker-compose
    docker-registry:docker-registry
    skopeo:skopeo
    crun:crun
    runc:runc
    podman:podman
    debootstrap:debootstrap
    nft:nftables
    ip:iproute2
    busybox:busybox-static
    curl:curl
    gcc:gcc
    make:make
    python3:python3
    openssl:openssl
    setpriv:util-linux
    psql:postgresql-client
    rabbitmq-server:rabbitmq-server
    erl_call:erlang-base
)

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing_packages() {
    local entry
    for entry in "${wanted[@]}"; do
        command -v "${entry%%:*}" >/dev/null || echo "${entry#*:}"
    done
    # The plain busybox is linked dynamically and would not run in an image.
    if command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then
        echo busybox-static
    fi
    # The server's programs are not on the PATH.
    if ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
        echo postgresql
    fi
    # Python's venv is a package of its own.
    python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
    # A library without a command.
    python3 -c 'import yaml' 2>/dev/null || echo python3-yaml
    # gcc only recommends the C library's headers.
    if [[ ! -e /usr/include/stdio.h ]]; then
        echo libc6-dev
    fi
}

# The host's own certificate authorities, for registries and mirrors over TLS.
certificates=/etc/ssl/certs/ca-certificates.crt

mapfile -t packages < <(missing_packages; [[ -e $certificates ]] || echo ca-certificates)
if [[ ${#packages[@]} -eq 0 ]]; then
    exit 0
fi

if [[ $(id -u) -ne 0 ]]; then
    echo "install.sh: must be root to install: ${packages[*]}" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "install.sh: no apt-get here; install by hand: ${packages[*]}" >&2
    exit 1
fi

# One installer at a time.
exec 9>/run/lock/abax-testbed-install
flock 9

# The tests make databases of their own: the package need make none.
cluster=/etc/postgresql-common/createcluster.conf
if [[ " ${packages[*]} " == *" postgresql "* && ! -e $cluster ]]; then
    mkdir -p "${cluster%/*}"
    echo 'create_main_cluster = false' >"$cluster"
fi

# Packages start their services unless this file says no (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
guard=
clean_up() {
    [[ -z $guard ]] || rm -f "$policy"
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP
if [[ ! -e $policy ]]; then
    guard=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
echo "install.sh: installing ${packages[*]}" >&2
for attempt in 1 2 3 4; do
    if apt-get -o DPkg::Lock::Timeout=300 -qq update >"$log" 2>&1 &&
        apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -qq -y \
            -o Dpkg::Options::=--force-confold \
            install --no-install-recommends "${packages[@]}" >>"$log" 2>&1; then
        mapfile -t packages < <(missing_packages)
        if [[ ${#packages[@]} -eq 0 ]]; then
            exit 0
        fi
        echo "install.sh: still missing after installation: ${packages[*]}" >&2
        exit 1
    fi
    echo "install.sh: attempt $attempt failed" >&2
    if [[ $attempt -lt 4 ]]; then
        sleep $((attempt * 5))
    fi
done
cat "$log" >&2
echo "install.sh: could not install ${packages[*]}" >&2
exit 1
