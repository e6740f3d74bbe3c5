#!/bin/sh
# Tries the Debian package where nothing else is: installs it in a fresh Debian 12, starts it as its unit would, upgrades,
# removes and purges it.
#
#   packaging/deb/try.sh PACKAGE.deb [FOLDER]
#
# FOLDER is a system made by debootstrap, or where one is to be made. It takes root, for chroot(1) and a mount namespace of
# its own; no systemd runs in there, so the unit itself is only verified.
set -eu

package=$(realpath "$1")
system=${2:-/var/tmp/distwatch-try}

if [ "${3:-}" != inside ]; then
    [ -e "$system/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$system"
    mkdir -p "$system/packages"
    cp "$package" "$system/packages/new.deb"
    chroot "$system" apt-get update -qq
    chroot "$system" apt-get install -qqy --no-install-recommends --download-only /packages/new.deb
    # From here on without a network but loopback; mounts and processes end with this one.
    exec unshare --mount --net --pid --fork --kill-child "$0" "$package" "$system" inside
fi

say() { echo "== $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
in_system() { chroot "$system" /usr/bin/env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }

ip link set lo up
mount -t proc proc "$system/proc"
mount --rbind /sys "$system/sys"
mount -t devpts devpts "$system/dev/pts"
mount -t tmpfs tmpfs "$system/run"

# The same with a lower version, and a line more in the default configuration: what an upgrade comes from.
old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
dpkg-deb --raw-extract "$package" "$old"
sed -i 's/^Version: .*/Version: 0.0.1-1/' "$old/DEBIAN/control"
echo '# An old default.' >> "$old/etc/distwatch/distwatch.toml"
dpkg-deb --root-owner-group --build "$old" "$system/packages/old.deb" >/dev/null

# Runs the daemon as the unit does: another user, with the unit's capabilities alone. Tells once it answers, then ends it.
start() {
    unit=$system/usr/lib/systemd/system/distwatch.service
    before=$(sed -n 's/^ExecStartPre=//p' "$unit")
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    names=$(sed -n 's/^AmbientCapabilities=//p' "$unit" | tr '[:upper:]' '[:lower:]' | sed 's/cap_/+/g; s/ /,/g')
    for folder in /run/distwatch /var/lib/distwatch /var/log/distwatch; do
        install -d -m 750 -o 61184 -g 61184 "$system$folder"
    done
    # shellcheck disable=SC2086 # the unit's command lines are lists of words
    in_system $before
    # shellcheck disable=SC2086
    chroot "$system" setpriv --reuid 61184 --regid 61184 --clear-groups --no-new-privs --inh-caps "-all,$names" \
        --ambient-caps "$names" --bounding-set "-all,$names" $command > "$system/packages/log" 2>&1 &
    daemon=$!
    for attempt in $(seq 100); do
        if in_system distwatch status > "$system/packages/status" 2>/dev/null; then
            break
        fi
        [ "$attempt" -lt 100 ] || { cat "$system/packages/log"; fail "it does not answer"; }
        sleep 0.2
    done
    head -n 3 "$system/packages/status"
    kill -TERM "$daemon"
    wait "$daemon" || fail "it ended with status $?"
    [ -n "$(ls "$system/var/lib/distwatch")" ] || fail "it kept nothing"
}

say "install"
in_system dpkg --purge distwatch >/dev/null 2>&1 || true
in_system apt-get install -qy --no-install-recommends /packages/old.deb >/dev/null
for file in /usr/bin/distwatch /usr/lib/systemd/system/distwatch.service /etc/distwatch/distwatch.toml \
    /etc/systemd/system/multi-user.target.wants/distwatch.service; do
    [ -e "$system$file" ] || [ -L "$system$file" ] || fail "$file is missing"
done
in_system distwatch --version
start

say "upgrade, with the configuration changed"
printf '\n[tls]\nexpiry_days = 60\n' > "$system/etc/distwatch/distwatch.toml"
in_system apt-get install -qy --no-install-recommends -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    /packages/new.deb >/dev/null
grep -q 'expiry_days = 60' "$system/etc/distwatch/distwatch.toml" || fail "the upgrade has overwritten the configuration"
start

say "remove"
in_system apt-get remove -qy distwatch >/dev/null
[ ! -e "$system/usr/bin/distwatch" ] || fail "the program is still there"
[ -e "$system/etc/distwatch/distwatch.toml" ] || fail "the configuration is gone"
[ -d "$system/var/lib/distwatch" ] || fail "the state is gone"

say "purge"
in_system apt-get purge -qy distwatch >/dev/null
left=$(find "$system/etc" "$system/usr" "$system/var/lib" "$system/var/log" -iname '*distwatch*' ! -path '*/apt/*')
[ -z "$left" ] || fail "it left: $left"
say "all of it went well"
