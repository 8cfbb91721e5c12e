#!/bin/sh
# go.sh ready | go.sh ARGUMENT... - go for the client in this folder, with all that it keeps in .tools. `ready`: is
# there one that is new enough? Only `mod download` reaches for the network.
cd "$(dirname "$0")" || exit 1
least=$(sed -n 's/^go //p' go.mod)
if [ "$1" = ready ]; then
    found=$(go env GOVERSION 2>/dev/null) || exit 1
    [ "$(printf '%s\n' "$least" "${found#go}" | sort -V | head -n 1)" = "$least" ]
    exit
fi
export GOMODCACHE="$PWD/../../.tools/go" GOCACHE="$PWD/../../.tools/go-build" GOFLAGS=-modcacherw GOTOOLCHAIN=local
[ "$1" = mod ] || export GOPROXY=off
exec go "$@"
