#!/usr/bin/env bash
# cross.sh - shows that wspush is portable: builds it and its unit tests for a machine of 32 bits
# (armhf) and for a big-endian one (s390x), and runs them there, emulated; the same for the tests of
# the API and of WebSockets, with the server on that machine and everybody else on this one. Builds
# for musl what needs no library, compiles for FreeBSD, NetBSD, OpenBSD and macOS, and checks that POSIX is the
# only feature that is asked for.
#
# A warning is a failure. Wants what `make cross-deps` brings; is no part of `make test`.
set -u
cd "$(dirname "$0")/../.." || exit 1

passed=0 failed=0
OUT=$(mktemp -d "${TMPDIR:-/tmp}/wspush-cross.XXXXXX")
trap 'rm -rf "$OUT"' EXIT

# An emulated machine of 32 bits cannot read the directories of a file system whose positions in
# them have 64, as ext4's: tests keep their files in memory.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm

# result NAME [PROBLEM]: counts one test.
result() {
    if [ -z "${2-}" ]; then
        passed=$((passed + 1))
        echo "ok   $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1: $2"
    fi
}

# part NAME EXPECTED COMMAND...: runs a program that ends with its own count, which must be EXPECTED
# if that is not empty. Its count is in $COUNT.
part() {
    local name=$1 expected=$2 status problem=
    shift 2
    timeout 240 "$@" >"$OUT/out" 2>"$OUT/err" </dev/null
    status=$?
    COUNT=$(tail -n 1 "$OUT/out" | grep -E '^[0-9]+ passed, [0-9]+ failed$')
    if [ $status != 0 ] || [ -z "$COUNT" ] || [ -s "$OUT/err" ]; then
        problem="status $status, ${COUNT:-no count}"
    elif [ "$COUNT" != "${expected:-$COUNT}" ]; then
        problem="$COUNT, on this machine $expected"
    fi
    if [ -n "$problem" ]; then
        failed=$((failed + 1))
        echo "FAIL $name: $problem"
        grep -av '^ok ' "$OUT/out" | head -n 20 | cut -c -200
        head -n 20 "$OUT/err"
        return
    fi
    passed=$((passed + ${COUNT%% *}))
    echo "ok   $name: $COUNT"
}

# build VARIANT TARGET... [VARIABLE=VALUE...]: builds with warnings as errors.
build() {
    local variant=$1
    shift
    if nice make -s -j2 CFLAGS='-O2 -g -Werror' "$@" >"$OUT/build" 2>&1; then
        result "$variant builds without a warning"
    else
        result "$variant builds without a warning" "$(head -n 20 "$OUT/build")"
        return 1
    fi
}

# modules LIST: prints a list of the Makefile.
modules() {
    sed -n "s/^$1 = //p" Makefile | tr ' ' '\n'
}

# --- what is asked for ----------------------------------------------------------------------------

asked=$(make -n -B wspush CFLAGS= | grep -oE -- ' -(D|U|std)[^ ]*' | sort -u | tr -d '\n')
[ "$asked" = ' -D_XOPEN_SOURCE=700 -std=c11' ] && asked=
result 'the build asks for C11 and POSIX 2008 with XSI, nothing else' "$asked"
result 'no source asks for more' \
    "$(grep -nE '^[[:space:]]*#[[:space:]]*(define|undef)[[:space:]]+_' ./*.[ch] tests/*/*.[ch])"

# --- here, for the counts -------------------------------------------------------------------------

UNITS=()
for source in tests/unit/test_*.c; do
    name=$(basename "$source" .c)
    case $name in
    test_cluster* | test_redis) ;; # modules that only a cluster has
    *) UNITS+=("$name") ;;
    esac
done
declare -A EXPECTED
build 'this machine' "${UNITS[@]/#/build/release/}" || exit 1
for name in "${UNITS[@]}"; do
    part "$name here" '' "build/release/$name"
    EXPECTED[$name]=$COUNT
done

# --- other machines -------------------------------------------------------------------------------

# machine VARIANT TRIPLET EMULATOR
machine() {
    local variant=$1 triplet=$2 root=.tools/cross/$1/usr name
    local emulate=("$3" -L "/usr/$triplet" -E "LD_LIBRARY_PATH=$root/lib/$triplet")

    if ! command -v "$triplet-gcc" "$3" >/dev/null || [ ! -d "$root" ]; then
        result "$variant" 'its tools are missing: run make cross-deps'
        return
    fi
    echo "     $("$triplet-gcc" --version | head -n 1); $("$3" --version | head -n 1)"
    build "$variant" CC="$triplet-gcc" AR="$triplet-ar" OPENSSL_LIBS="-L$root/lib/$triplet -lssl -lcrypto" \
        OPENSSL_CFLAGS="-isystem $root/include -isystem $root/include/$triplet" \
        "build/$variant/wspush" "${UNITS[@]/#/build/$variant/}" || return
    for name in "${UNITS[@]}"; do
        part "$name on $variant" "${EXPECTED[$name]}" "${emulate[@]}" "build/$variant/$name"
    done
    printf '#!/bin/sh\nexec %s build/%s/wspush "$@"\n' "${emulate[*]}" "$variant" >"$OUT/wspush"
    chmod 755 "$OUT/wspush"
    for name in api websocket; do
        part "$name with the server on $variant" '' env WSPUSH="$OUT/wspush" "tests/e2e/$name.sh"
    done
}

machine armhf arm-linux-gnueabihf qemu-arm
machine s390x s390x-linux-gnu qemu-s390x

# --- another C library ----------------------------------------------------------------------------

# musl: there are no libraries for it here, nor the kernel's headers. Modules that use a library are left
# out, and so are the tests that need one of them.
musl() {
    local modules without name units=() objects=()

    # shellcheck disable=SC2046 # lists of words
    {
        modules=$(grep -L '^#include <openssl' $(modules MODULES | sed 's/$/.c/') | sed 's/\.c$//')
        without=$(grep -l '^#include <openssl' $(modules MODULES | sed 's/$/.c/') | sed 's/\.c$//' | paste -sd '|')
    }
    for name in "${UNITS[@]}"; do
        if grep -q '^#include <openssl' "tests/unit/$name.c"; then
            echo "skip $name with musl: it needs OpenSSL itself"
        else
            units+=("$name")
        fi
    done
    for name in $modules "${units[@]/#/tests/unit/}"; do
        objects+=("build/musl/$name.o")
    done
    build "musl (without ${without//|/, })" CC=musl-gcc OPENSSL_CFLAGS= "${objects[@]}" || return
    rm -f build/musl/libwspush.a
    for name in $modules; do
        ar rcs build/musl/libwspush.a "build/musl/$name.o"
    done
    for name in "${units[@]}"; do
        if musl-gcc -static -pthread -o "build/musl/$name" "build/musl/tests/unit/$name.o" build/musl/libwspush.a 2>"$OUT/link"; then
            part "$name with musl" "${EXPECTED[$name]}" "build/musl/$name"
        else
            result "$name with musl needs one of the modules that are left out" \
                "$(grep 'undefined reference' "$OUT/link" | grep -vE "\`(($without)_|__real_)" | head -n 3)"
        fi
    done
}

if command -v musl-gcc >/dev/null; then
    musl
else
    result musl 'musl-gcc is missing: run make cross-deps'
fi

# --- other systems --------------------------------------------------------------------------------

# systems: zig brings the headers of these systems. Those of the three libraries are this machine's, in folders
# that show nothing else of it. What is compiled is not linked, nor run.
systems() {
    local zig=.tools/zig/ziglang/zig system name file objects=() arch
    if [ ! -x "$zig" ]; then
        result 'other systems' 'zig is missing: run make cross-deps'
        return
    fi
    arch=$(cc -print-multiarch)
    mkdir -p "$OUT/include" "$OUT/arch"
    ln -s /usr/include/openssl /usr/include/hiredis "$OUT/include/"
    for file in /usr/include/rabbitmq-c /usr/include/amqp*.h; do
        [ ! -e "$file" ] || ln -s "$file" "$OUT/include/"
    done
    [ ! -d "/usr/include/$arch/openssl" ] || ln -s "/usr/include/$arch/openssl" "$OUT/arch/"
    export ZIG_GLOBAL_CACHE_DIR=$OUT/zig ZIG_LOCAL_CACHE_DIR=$OUT/zig
    echo "     zig $("$zig" version)"
    for system in freebsd:x86_64 netbsd:x86_64 openbsd:x86_64 macos:aarch64; do
        objects=()
        for name in wspush $(modules MODULES); do
            objects+=("build/${system%:*}/$name.o" "build/cluster-${system%:*}/$name.o")
        done
        for name in $(modules CLUSTER_MODULES); do
            objects+=("build/cluster-${system%:*}/$name.o")
        done
        build "${system%:*} (compiled only)" CC="$zig cc -target ${system#*:}-${system%:*}" \
            OPENSSL_CFLAGS="-isystem $OUT/include -isystem $OUT/arch" "${objects[@]}"
    done
}

systems
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
