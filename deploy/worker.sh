#!/bin/sh
# Becomes `abax worker` inside a container of docker, podman or Kubernetes.
#
# The container is root's, and needs
#   SYS_ADMIN      mounts, namespaces and control groups of executions
#   NET_ADMIN      their bridge and its firewall
#   SYS_PTRACE     to enter their namespaces
#   CHOWN DAC_OVERRIDE FOWNER FSETID SETFCAP MKNOD
#                  to unpack layers as they are, whoever owns their files
#   SETUID SETGID  to map the users of executions to users without rights
#   pivot_root(2)  which docker's seccomp profile refuses:
#                  deploy/compose/worker-seccomp.json is that profile with it
#   a volume at /var/lib/abax, since overlayfs cannot stand on overlayfs
# and no AppArmor profile that denies mount(2). It is not `--privileged`: no
# devices of the host, none of its control groups but its own, no other
# capability. Executions have none of this: they get a user namespace, no
# capability, and Docker's seccomp profile.
set -eu

if [ "$(stat -f -c %T /var/lib/abax)" = overlayfs ]; then
    echo "abax-worker: /var/lib/abax must be a volume, since overlayfs cannot stand on overlayfs" >&2
    exit 1
fi

# The container's own /proc has parts that are read-only or hidden. The network
# of executions has settings below /proc/sys (of this network namespace), and
# the kernel allows a user namespace its /proc only where one is seen whole.
if [ ! -w /proc/sys/net/ipv4/ip_forward ]; then
    mount -t proc -o nosuid,nodev,noexec proc /proc
fi

# Control groups: this container's own part of each tree, for writing.
for mount in $(awk '/ - cgroup2? / { print $5 }' /proc/self/mountinfo); do
    mount -o remount,rw,bind "$mount"
done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    # A group that hands controllers down may have no processes of its own.
    mkdir -p /sys/fs/cgroup/worker
    while read -r pid; do
        echo "$pid" >/sys/fs/cgroup/worker/cgroup.procs 2>/dev/null || true
    done </sys/fs/cgroup/cgroup.procs
elif [ -z "${ABAX_OWN_CGROUPS:-}" ]; then
    # Version 1: what has a tree of version 2 beside it, though container
    # engines do not mount that, starts executions faster in it. Seen from a
    # namespace of its own, its top is this container's group.
    export ABAX_OWN_CGROUPS=yes
    exec unshare --cgroup "$0" "$@"
else
    mkdir -p /sys/fs/cgroup/unified
    mount -t cgroup2 none /sys/fs/cgroup/unified 2>/dev/null ||
        rmdir /sys/fs/cgroup/unified
    unset ABAX_OWN_CGROUPS
fi

exec abax worker "$@"
