#!/bin/bash
# A dockerd of Debian for tests, apart from any other on this machine: its own
# data, socket, and network and mount namespaces, so that its bridges, firewall
# rules and published ports are seen by nobody else and end with it.
#
#   daemon.sh start DIR           starts it; images stay in DIR from run to run
#   daemon.sh run DIR COMMAND…    runs COMMAND where the published ports are
#   daemon.sh stop DIR            ends it, its containers and its namespaces
#
# Then DOCKER_HOST=unix://DIR/docker.sock.
set -euo pipefail

PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin:$PATH
verb=${1:?start, run or stop}
mkdir -p "${2:?a directory}"
dir=$(cd "$2" && pwd)
shift 2

# A name per directory, so that two runs do not meet; an interface's name has
# at most fifteen characters.
name=abax-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1 | cut -c 1-8)
cgroup_parent=/$name
outside=198.18.7.1
inside=198.18.7.2

is_running() {
    [[ -e $dir/pid ]] && [[ $(readlink "/proc/$(<"$dir/pid")/exe") == */dockerd ]]
}

# In the new namespaces: waits for the way out, then becomes dockerd.
serve() {
    # What /sys says of interfaces is to be of this namespace; control groups
    # are mounted below it and move over.
    mount --make-rprivate /
    mkdir -p "$dir/cgroup"
    mount --rbind /sys/fs/cgroup "$dir/cgroup"
    mount -t sysfs none /sys
    mount --rbind "$dir/cgroup" /sys/fs/cgroup
    umount -R "$dir/cgroup"
    ip link set lo up
    for _ in $(seq 100); do
        ! ip link show eth0 >/dev/null 2>&1 || break
        sleep 0.05
    done
    ip address add "$inside/30" dev eth0
    ip link set eth0 up
    ip route add default via "$outside"
    echo 1 >/proc/sys/net/ipv4/ip_forward
    # shellcheck disable=SC2086 # Words, or nothing.
    exec dockerd --host "unix://$dir/docker.sock" --data-root "$dir/data" \
        --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" \
        --bip 198.18.8.1/24 --default-address-pool base=198.19.0.0/16,size=24 \
        --cgroup-parent "$cgroup_parent" ${1:+--storage-driver "$1"}
}

# The way out of the namespaces, for what is built or pulled inside.
connect() {
    local pid=$1
    ip link delete "$name" 2>/dev/null || true
    ip link add "$name" type veth peer name eth0 netns "$pid"
    ip address add "$outside/30" dev "$name"
    ip link set "$name" up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    nft -f - <<END
table ip $name
delete table ip $name
table ip $name {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr $inside oifname != "$name" masquerade
    }
}
END
    # Another dockerd may have set the chain's policy to drop.
    disconnect_firewall
    iptables -I FORWARD -i "$name" -j ACCEPT
    iptables -I FORWARD -o "$name" -j ACCEPT
}

disconnect_firewall() {
    while iptables -D FORWARD -i "$name" -j ACCEPT 2>/dev/null; do :; done
    while iptables -D FORWARD -o "$name" -j ACCEPT 2>/dev/null; do :; done
}

start_with() {
    local driver=$1 pid
    unshare --net --mount -- "$0" serve "$dir" "$driver" >"$dir/log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$dir/pid"
    # The namespace is the child's own once it differs from ours.
    for _ in $(seq 100); do
        [[ $(readlink "/proc/$pid/ns/net") == "$(readlink /proc/self/ns/net)" ]] || break
        sleep 0.05
    done
    connect "$pid"
    for _ in $(seq 300); do
        ! DOCKER_HOST=unix://$dir/docker.sock docker version >/dev/null 2>&1 || return 0
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

start() {
    if is_running; then
        return
    fi
    stop
    # overlay2 where the file system can carry it; vfs works everywhere, slowly.
    if ! start_with overlay2; then
        echo "daemon.sh: no overlay2 here, trying vfs" >&2
        tail -n 3 "$dir/log" >&2
        stop
        if ! start_with vfs; then
            tail -n 20 "$dir/log" >&2
            stop
            return 1
        fi
    fi
}

stop() {
    local pid tree
    if is_running; then
        pid=$(<"$dir/pid")
        kill "$pid"
        for _ in $(seq 300); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$dir/pid" "$dir/dockerd.pid" "$dir/docker.sock"
    ip link delete "$name" 2>/dev/null || true
    nft delete table ip "$name" 2>/dev/null || true
    disconnect_firewall
    for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [[ ! -d $tree$cgroup_parent ]] ||
            find "$tree$cgroup_parent" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

case $verb in
    start) start ;;
    serve) serve "$@" ;;
    run)
        is_running || { echo "daemon.sh: not running" >&2; exit 1; }
        exec nsenter --target "$(<"$dir/pid")" --net -- "$@"
        ;;
    stop) stop ;;
    *) echo "daemon.sh: start, run or stop, not $verb" >&2; exit 2 ;;
esac
