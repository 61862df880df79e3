#!/bin/sh
# Prints the name of an image with Python and pip, after making sure that the
# store has it: python:3.12-slim where a public registry answers, else a small
# Debian with its own Python, made by debootstrap.
#
#   examples/base/python.sh        uses $ABAX (default: abax on the PATH)
set -eu
ABAX=${ABAX:-abax}
PUBLIC=python:3.12-slim
LOCAL=localhost/debian-python:bookworm

have() { "$ABAX" images --quiet "$1" 2>/dev/null | grep -q .; }

for name in "$PUBLIC" "$LOCAL"; do
    if have "$name"; then echo "$name"; exit; fi
done
if timeout 300 "$ABAX" pull "$PUBLIC" >&2; then echo "$PUBLIC"; exit; fi

echo "No public registry answers; making a base image with debootstrap." >&2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root" # mktemp made it 0700, and the image's / would be so, too
mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\).*/\2/p' \
    /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
log=$root.log
for try in 1 2 3; do
    if debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates \
        bookworm "$root" "$mirror" >"$log" 2>&1; then break; fi
    [ "$try" -lt 3 ] || { tail -n 20 "$log" >&2; exit 1; }
    echo "debootstrap failed; trying again." >&2
    find "$root" -mindepth 1 -delete
done
rm -f "$log"

# What an image does not need, and what would stop pip from installing into it.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/info/* \
    "$root"/usr/share/locale/* "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
ln -sf python3 "$root/usr/bin/python"

tar -C "$root" --numeric-owner --one-file-system -c . | "$ABAX" import \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1' \
    --change 'CMD ["python3"]' \
    - "$LOCAL" >&2
echo "$LOCAL"
