#!/usr/bin/env bash
# rfc9112.sh - RFC 9112 over a socket: the vectors of rfc9112.c, and bodies as curl chunks them.
# build: asan/wspush asan/rfc9112
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

# chunked [CURL-ARGUMENT...]: posts its input in chunks and prints the answer.
chunked() {
    curl -s --max-time 20 -H 'Transfer-Encoding: chunked' "$@" --data-binary @- \
        "http://127.0.0.1:$PORT/api/register"
}

# body COUNT: prints a registration with a field of COUNT bytes that is ignored.
body() {
    printf '{"systemId":"n","password":"p","pad":"%*s"}' "$1" ''
}

configure '[limits]
max_body = 64 KiB'
start
call register "{'systemId':'n','password':'secret'}" >/dev/null
vectors build/asan/rfc9112 "$PORT"
for size in 0 5000 65000; do
    expect "curl sends $size bytes in chunks" -1004 "$(body $size | chunked | jq .code)"
done
expect_match 'curl sends more than max_body in chunks' '{"code":-1,"msg":"*max_body*","data":\[\]}' \
    "$(body 65536 | chunked)"
expect 'curl waits for 100 and sends chunks' "100 200 -1004" \
    "$(body 5000 | chunked -i -H 'Expect: 100-continue' | tr -d '\r' |
        sed -n 's/^HTTP\/1.1 \(...\).*/\1/p; s/^{"code":\(-[0-9]*\).*/\1/p' | xargs)"
stop
finish
