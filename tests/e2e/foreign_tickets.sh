#!/usr/bin/env bash
# foreign_tickets.sh - tickets that business systems sign themselves, with PyJWT, jsonwebtoken and golang-jwt, under the
# key of /api/ticket_key: what the libraries write as they are usually called is good, and what is not HS256 is not.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
need node go
/usr/bin/python3 -c 'import jwt' 2>/dev/null || { bad 'PyJWT is missing' 'run make test-deps'; finish; }
export NODE_PATH=$PWD/.tools/node/node_modules
node -e 'require("jsonwebtoken")' 2>/dev/null || { bad 'jsonwebtoken is missing' 'run make test-deps'; finish; }

# by_python [ALGORITHM]: prints a ticket.
by_python() {
    KEY=$KEY /usr/bin/python3 - "${1-HS256}" <<'PYTHON'
import base64, datetime, os, sys, jwt
key = base64.urlsafe_b64decode(os.environ["KEY"] + "=")
expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
ticket = jwt.encode({"sys": "shop", "sub": "Ü 1", "grp": ["g"], "exp": expires},
                    None if sys.argv[1] == "none" else key, algorithm=sys.argv[1])
print(ticket)
PYTHON
}

# by_node EXPIRES: prints a ticket; jsonwebtoken takes a number as it is, and JavaScript's have fractions.
by_node() {
    KEY=$KEY node -e '
        console.log(require("jsonwebtoken").sign(
            { sys: "shop", sub: "Ü 1", grp: ["g"], exp: '"$1"' }, Buffer.from(process.env.KEY, "base64url")))'
}

by_go() {
    GO_IN=tests/support/jwt tests/support/go.sh run . "$KEY" shop 'Ü 1' g
}

# enters NAME TICKET: expects that a client with this ticket is the user, and in the group.
enters() {
    client visitor "shop&ticket=$2"
    expect "$1" 'Ü 1 ["g"]' \
        "$(post /api/client_info "{\"clientId\":\"$ID\"}" | jq -r '"\(.data.userId) \(.data.groups)"')"
}

refused() {
    client visitor "shop&ticket=$2"
    expect "$1" '{"code":-1002,"msg":"ticket malformed","data":[]} 4401 ticket malformed' \
        "$(head -n 1 "$DIR/visitor.out") $(closed visitor)"
}

configure "[auth]
connect = ticket"
quick_hashes
start
sign_up shop
KEY=$(post /api/ticket_key '{}' | jq -r .data.key)
enters 'PyJWT' "$(by_python)"
enters 'jsonwebtoken' "$(by_node 'Math.floor(Date.now() / 1000) + 60')"
enters 'a time with a fraction' "$(by_node 'Date.now() / 1000 + 60.25')"
enters 'golang-jwt' "$(by_go 2>"$DIR/go" || cat "$DIR/go")"
refused 'HS512' "$(by_python HS512)"
refused 'no signature' "$(by_python none)"
halt
finish
