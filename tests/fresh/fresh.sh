#!/usr/bin/env bash
# fresh.sh RELEASE - a bare Debian (mmdebstrap, minbase: no sudo, no package lists, no curl), in which the quick start of
# README.md is typed as it stands, `make install` and `make deb` are run, and the package is installed, started, removed
# and purged. The tree is thrown away: mmdebstrap makes it, mounts what it needs in a mount namespace that ends with it,
# runs this script as its hook, and removes it. Needs root. The last commit is what is cloned.
#
# A chroot has the ports of this machine: 7800 and 7801 if they are free and LANE is not set, else others, which the
# server is told by its environment.
set -u
if [ "${1-}" != --inside ]; then
    cd "$(dirname "$0")/../.." || exit 1
    missing=
    for tool in mmdebstrap git chromium chromedriver jq script; do
        command -v $tool >/dev/null || missing+=" $tool"
    done
    [ -z "$missing" ] || { echo "test-fresh needs$missing: apt-get install mmdebstrap, and make test-deps"; exit 1; }
    [ "$(id -u)" = 0 ] || { echo 'test-fresh needs root: it enters a chroot'; exit 1; }
    git rev-parse HEAD >/dev/null || exit 1
    [ -z "$(git status --porcelain)" ] || echo 'what is not committed is left out'
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/wspush-fresh.XXXXXX")
    trap 'rm -rf "$work"' EXIT # nothing is mounted here: the tree is a folder of mmdebstrap's own
    git bundle create -q "$work/wspush.bundle" HEAD || exit 1
    echo "making a bare $1"
    WORK=$work TMPDIR=$work mmdebstrap --quiet --mode=root --variant=minbase --format=null \
        --customize-hook="$PWD/tests/fresh/fresh.sh --inside \"\$1\"" "$1" /dev/null ${MIRROR:+"$MIRROR"} \
        >"$work/mmdebstrap" 2>&1 3>&1
    cat "$work/said" 2>/dev/null || cat "$work/mmdebstrap"
    tail -n 1 "$work/said" 2>/dev/null | grep -q ' passed, 0 failed$'
    exit
fi

# --- inside of mmdebstrap's mount namespace: $2 is the tree -----------------------------------------

ROOT=$2
exec >"$WORK/said" 2>&1
unset TMPDIR
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/support/browser_lib.sh
. tests/support/browser_lib.sh
# shellcheck source=tests/support/walk_lib.sh
. tests/support/walk_lib.sh

# in_tree COMMAND: what it prints, also on stderr.
in_tree() {
    "${IN_TREE[@]}" sh -c "$1" 2>&1
}

# does NAME COMMAND: it must succeed; the end of what it printed is told if it does not.
does() {
    local status
    in_tree "$2" >"$WORK/out"
    status=$?
    if [ $status = 0 ]; then
        ok "$1"
    else
        bad "$1" "status $status: $(tail -n 8 "$WORK/out")"
    fi
}

PORT=7800 ADMIN=127.0.0.1:7801
if [ -n "${LANE-}" ] || listens 7800 || listens 7801; then
    free_port; PORT=$FREE
    free_port; ADMIN=127.0.0.1:$FREE
fi
THERE=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root WSPUSH_COMMON_PORT="$PORT"
    WSPUSH_ADMIN_LISTEN="$ADMIN")
IN_TREE=(chroot "$ROOT" "${THERE[@]}" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
SHELL_THERE="chroot '$ROOT' ${THERE[*]} TERM=dumb PS1='$PROMPT' bash --norc --noprofile -i"
rm -rf "$ROOT"/var/lib/apt/lists/* # as in an image
cp "$WORK/wspush.bundle" "$ROOT/"
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
chmod 755 "$ROOT/usr/sbin/policy-rc.d"

# The quick start: all lines but the last one, which is the suite.
quick_start() {
    local line begin=$SECONDS
    expect 'there is no sudo, no git, no curl' '' "$(in_tree 'command -v sudo git curl make cc')"
    terminal_open first "$SHELL_THERE"
    terminal_type first 'cd /root'
    terminal_await first 10
    while IFS= read -r line <&9; do
        line=${line/git clone …/git clone \/wspush.bundle}
        case $line in
        'make deps run'*)
            terminal_type first "$line"
            walk_welcome first 900
            ;;
        'make test-deps'*) ;;
        *)
            terminal_type first "$line"
            terminal_await first 900
            terminal_type first "echo status \$?"
            terminal_await first 10
            expect "typed: ${line%  *}" 'status 0' "$(terminal_screen first)"
            ;;
        esac
    done 9< <(walk_block sh)
    terminal_open second "$SHELL_THERE"
    browser_start
    browser_open
    walk_type second 1
    walk_paste
    walk_type second 2
    walk_browser
    echo "# $((SECONDS - begin)) s from the bare machine to the last push"
    printf '\003' >&"${KEYS[first]}"
    terminal_await first 60
    expect_match 'Ctrl-C ends it, and says how' '*info stopping: clients are closed over drain_ms; a second signal *info stopped*' \
        "$(terminal_screen first)"
    browser_end
    expect_match 'a second make deps does nothing' '*everything needed to build is installed' \
        "$(in_tree 'cd /root/wspush && make deps')"
}

# start_installed NAME BINARY: starts it as its user, as the unit would, which a chroot has no systemd for.
start_installed() {
    does "$1: the configuration is good, as the user reads it" \
        "setpriv --reuid=wspush --regid=wspush --clear-groups $2 -t -c /etc/wspush/wspush.ini"
    "${IN_TREE[@]}" sh -c "cd /var/lib/wspush &&
        exec setpriv --reuid=wspush --regid=wspush --clear-groups $2 -c /etc/wspush/wspush.ini" &
    SERVER=$!
    wait_for answers
    expect "$1: it serves" '{"code":0,"msg":"success","data":[]}' "$(curl -s "http://127.0.0.1:$PORT/healthz")"
    expect_match "$1: it keeps accounts" '200 {"code":0,*' "$(call register "{'systemId':'$1','password':'p'}")"
    kill -TERM "$SERVER"
    wait "$SERVER"
    expect "$1: and ends" 0 $?
    SERVER=''
    expect "$1: with data and log where the configuration says" "$1" \
        "$(in_tree "grep -q '\"$1\"' /var/log/wspush/wspush.log && cut -d ' ' -f 1 /var/lib/wspush/accounts >/dev/null && echo $1")"
}

installed() {
    does 'make install' 'cd /root/wspush && make install'
    expect_match 'it leaves one step' '*systemctl enable --now wspush' "$(tail -n 1 "$WORK/out")"
    expect 'who may read the configuration' 'root:wspush 640' "$(in_tree 'stat -c "%U:%G %a" /etc/wspush/wspush.ini')"
    start_installed by_hand /usr/local/bin/wspush
    does 'make uninstall' 'cd /root/wspush && make uninstall && rm -rf /etc/wspush /etc/logrotate.d/wspush /var/lib/wspush /var/log/wspush && userdel wspush'
}

packaged() {
    local lintian
    does 'debhelper and lintian are installed' 'apt-get install -q -y --no-install-recommends build-essential debhelper lintian'
    does 'make deb' 'cd /root/wspush && make deb'
    lintian=$(in_tree 'cd /root/wspush/build/deb && lintian --allow-root --fail-on error,warning *.changes')
    expect 'lintian has nothing to say' '0 ' "$? $lintian"
    grep '^wspush:' contrib/debian/wspush.lintian-overrides | sed 's/^/# overridden: /'
    does 'apt installs the package' 'apt-get install -q -y --no-install-recommends /root/wspush/build/deb/wspush_*.deb'
    expect 'who may read the configuration it brings' 'root:wspush 640' "$(in_tree 'stat -c "%U:%G %a" /etc/wspush/wspush.ini')"
    expect 'the service waits to be enabled' '' "$(in_tree 'ls /etc/systemd/system/multi-user.target.wants/wspush.service 2>/dev/null')"
    does 'the folders that the unit would make' \
        'install -d -o wspush -g wspush -m 700 /var/lib/wspush && install -d -o wspush -g wspush -m 750 /var/log/wspush'
    start_installed package /usr/bin/wspush
    does 'installed again, it keeps what an operator has changed' \
        'echo "# mine" >>/etc/wspush/wspush.ini && apt-get install -q -y --reinstall --no-install-recommends -o Dpkg::Options::=--force-confold /root/wspush/build/deb/wspush_*.deb && grep -q "# mine" /etc/wspush/wspush.ini'
    does 'removed' 'apt-get remove -q -y wspush && test ! -e /usr/bin/wspush && test -e /etc/wspush/wspush.ini && test -e /var/lib/wspush/accounts'
    does 'purged' 'apt-get purge -q -y wspush'
    expect 'nothing is left' '' "$(in_tree 'find / -xdev -name "*wspush*" ! -path "/root/*" ! -path "/proc/*" ! -path "/sys/*" ! -path /wspush.bundle')"
}

quick_start
installed
packaged
finish
