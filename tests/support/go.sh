#!/bin/sh
# go.sh ready | go.sh ARGUMENT... - runs go in examples/, or in the folder $GO_IN, with its caches in .tools. `ready`
# succeeds if the installed go is new enough for go.mod. Only `mod download` uses the network.
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
cd "${GO_IN:-examples}" || exit 1
least=$(sed -n 's/^go //p' go.mod)
if [ "$1" = ready ]; then
    found=$(go env GOVERSION 2>/dev/null) || exit 1
    [ "$(printf '%s\n' "$least" "${found#go}" | sort -V | head -n 1)" = "$least" ]
    exit
fi
export GOMODCACHE="$root/.tools/go" GOCACHE="$root/.tools/go-build" GOFLAGS=-modcacherw GOTOOLCHAIN=local
[ "$1" = mod ] || export GOPROXY=off
exec go "$@"
