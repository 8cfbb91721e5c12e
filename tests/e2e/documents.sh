#!/usr/bin/env bash
# documents.sh [PART...] - checks that the documents are true: README.md and docs/, and their Chinese twins.
# Keys, paths, codes, metrics, options, signals, links, files, functions and messages are looked up where they are
# defined, and the commands shown are run. walk.sh types the quick start, readme.sh runs the chapter on clusters, examples.sh the examples.
# build: asan/wspush cluster-asan/wspush release/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

# each has a Chinese twin
TWINS=(README.md docs/api.md docs/operations.md docs/cluster.md docs/troubleshooting.md docs/faq.md docs/comparison.md
    docs/deploy.md docs/migrating-from-go-websocket.md)
DOCUMENTS=(*.md docs/*.md examples/README.md tests/README.md)
BINARY=$PWD/$WSPUSH
case $WSPUSH in /*) BINARY=$WSPUSH ;; esac
CLUSTER_BINARY=${CLUSTER_WSPUSH:-build/cluster-asan/wspush}

# twin FILE: its Chinese twin.
twin() {
    echo "${1%.md}.zh-CN.md"
}

# both FILE: the file and its twin.
both() {
    echo "$1" "$(twin "$1")"
}

# same NAME LIST LIST: two lists, one entry a line, must be the same; says which entries are not.
same() {
    if [ -n "$2" ] && [ "$2" = "$3" ]; then
        ok "$1"
    else
        bad "$1" "$(diff <(echo "$2") <(echo "$3") | grep '^[<>]' | head -n 8)"
    fi
}

# none NAME LIST: there must be nothing in the list.
none() {
    expect "$1" '' "$(echo "$2" | head -n 8)"
}

# blocks FILE [LANGUAGE]: its blocks of code, each with its fences.
blocks() {
    awk -v wanted="${2-}" '
        /^```/ { if (inside) { if (show) print; inside = 0; next }
                 inside = 1; show = wanted == "" || $0 == "```" wanted }
        inside && show { print }' "$1"
}

# code FILE: all that is code, a piece a line: the blocks, and what stands between backticks.
code() {
    blocks "$1" | grep -v '^```'
    awk '/^```/ { inside = !inside; next } !inside' "$1" | grep -o '`[^`]*`' | tr -d '`'
}

# chapter FILE NUMBER: the text of a chapter, which is found by its number.
chapter() {
    awk -v number="$2" '/^```/ { inside = !inside } !inside && /^## / { count++ } count == number' "$1"
}

# number FILE TITLE: the number of a chapter.
number() {
    awk -v title="## $2" '/^```/ { inside = !inside } !inside && /^## / { count++ } $0 == title { print count }' "$1"
}

# --- both languages ---------------------------------------------------------------------------

# comparable FILE: its code, without comments and diagrams, whose words are translated.
comparable() {
    awk '/^```mermaid/ { picture = 1 } !picture { print } /^```$/ { picture = 0 }' <(blocks "$1") |
        sed -E 's/ +[#;] .*$//'
}

# outline FILE: the levels of its headings, in order.
outline() {
    awk '/^```/ { inside = !inside } !inside && /^#+ / { print $1 }' "$1"
}

# columns FILE: how many cells each row of a table has.
columns() {
    awk '/^```/ { inside = !inside } !inside && /^\|/ { gsub(/`[^`]*`/, ""); print gsub(/\|/, "") }' "$1"
}

languages() {
    local file other
    for file in "${TWINS[@]}"; do
        other=$(twin "$file")
        same "$file: the same code in both languages" "$(comparable "$file"; echo .)" "$(comparable "$other"; echo .)"
        same "$file: the same headings" "$(outline "$file")" "$(outline "$other")"
        same "$file: tables of the same form" "$(columns "$file"; echo .)" "$(columns "$other"; echo .)"
        expect "$file: as many diagrams" "$(blocks "$file" mermaid | grep -c '^```m')" "$(blocks "$other" mermaid | grep -c '^```m')"
        expect "$file: each names the other at its top" '1 1' \
            "$(head -n 5 "$file" | grep -c "(${other##*/})") $(head -n 5 "$other" | grep -c "(${file##*/})")"
        same "$file: links to the same files" "$(files_linked "$file")" "$(files_linked "$other")"
        none "$other: Chinese has its own punctuation" "$(awk '/^```/ { inside = !inside; next } !inside' "$other" |
            jq -Rr 'gsub("`[^`]*`"; "`") | select(test("\\p{Han}[,;!?]"))')"
    done
    expect 'every Chinese document is the twin of one' "${#TWINS[@]}" "$(printf '%s\n' *.zh-CN.md docs/*.zh-CN.md | wc -l)"
    for file in "${DOCUMENTS[@]}"; do
        none "$file: no white space at the end of a line" "$(grep -n '[[:space:]]$' "$file")"
        expect "$file: blocks of code end" 0 $(($(grep -c '^```' "$file") % 2))
    done
    for file in $(both README.md); do
        expect "$file: at most 350 lines" yes "$([ "$(wc -l <"$file")" -le 350 ] && echo yes)"
    done
}

# --- names ------------------------------------------------------------------------------------

# make's targets, one a line.
targets() {
    cat Makefile tests/*.mk contrib/*.mk 2>"$DIR/none" | sed -n 's/^\.PHONY: //p; s/^#: make \([a-z-]*\).*/\1/p' | tr ' ' '\n' |
        grep -vx FORCE
    echo wspush
}

named_targets() {
    code "$1" | sed -E "s/#.*//; s/=('[^']*'|\"[^\"]*\")/=/g" | grep -oE '(^|[ (])make( +[a-zA-Z][^ ;&|)]*)+' |
        sed -E 's/.*make +//' | tr -s ' ' '\n' | grep -v = | sort -u
}

makefile() {
    local file
    for file in "${DOCUMENTS[@]}"; do
        none "$file: targets of make" "$(comm -23 <(named_targets "$file") <(targets | sort -u))"
    done
    expect 'contributing.md names targets' yes "$([ "$(named_targets docs/contributing.md | wc -l)" -gt 10 ] && echo yes)"
    for file in $(both README.md); do
        expect "$file: the two commands" '1 1' "$(blocks "$file" sh | grep -c '^make deps run  ') $(
            blocks "$file" sh | grep -c '^make test-deps test  ')"
    done
}

# keys FILE: of config.ini, "[SECTION] KEY = DEFAULT" a line.
keys() {
    awk '/^\[/ { section = $0 } /^[a-z_]+ =/ { print section, $0 }' "$1"
}

# documented_keys FILE: the same of the table in operations.md.
documented_keys() {
    awk '/^\| \*\*\[/ { section = $2; gsub(/\*/, "", section) }
        /^\| `[a-z_]+ =/ { split($0, parts, "`"); print section, parts[2] }' "$1"
}

# live_keys: those that wspush.ini.5 marks as read again.
live_keys() {
    awk '/^\.Ss / { section = substr($2, 1, index($2, "]")) } /^\.It Ic / { key = section " " $3 }
        /^Read again on SIGHUP/ { print key }' contrib/wspush.ini.5
}

configuration() {
    local file
    for file in $(both docs/operations.md); do
        same "$file: every key, with its default" "$(keys config.ini | sort)" "$(documented_keys "$file" | sort)"
        same "$file: what is read again" "$(live_keys)" "$(awk '/^\| \*\*\[/ { section = $2; gsub(/\*/, "", section) }
            /^\| `[a-z_]+ =.*↻ \|$/ { sub(/`/, "", $2); print section, $2 }' "$file")"
        same "$file: options" "$("$BINARY" -h | sed -n 's/^usage: //p')" "$(code "$file" | grep -x 'wspush \[-c.*')"
    done
    for file in "${DOCUMENTS[@]}"; do
        # `key = value` and `[section] key` in the text
        none "$file: keys of config.ini" "$(comm -23 <(code "$file" | grep -oE '^\[[a-z]+\] [a-z_]+' | sort -u) \
            <(keys config.ini | sed 's/ =.*//' | sort))"
        none "$file: sections" "$(comm -23 <(code "$file" | grep -oE '^\[[a-z]+\]' | sort -u) \
            <(grep '^\[' config.ini | sort))"
    done
}

signals() {
    local file known
    known=$(sed -n 's/.*counted\[\] = {\(.*\)};/\1/p' wspush.c | tr -d ' ' | tr ',' '\n' | sort)
    for file in $(both docs/operations.md); do
        same "$file: signals" "$known" "$(grep -E '^\| SIG' "$file" | cut -d '|' -f 2 | grep -o 'SIG[A-Z0-9]*' | sort)"
    done
    for file in "${DOCUMENTS[@]}"; do
        none "$file: signals named" "$(comm -23 <(grep -o 'SIG[A-Z0-9][A-Z0-9]*' "$file" | sort -u) \
            <({ echo "$known" && sed -n 's/.*sigaction(\(SIG[A-Z]*\), &ignore,.*/\1/p' wspush.c; } | sort))"
    done
}

# --- against servers --------------------------------------------------------------------------

# a_cluster_node: /metrics of a node of a cluster, which need not have joined, with TLS. Some metrics exist only where
# the system has what they say.
a_cluster_node() {
    local node port rpc admin
    free_port; port=$FREE
    free_port; rpc=$FREE
    free_port; admin=$FREE
    printf '%s\n' '[common]' 'host = 127.0.0.1' "port = $port" 'cluster = true' 'crypto_key = 0123456789abcdef' \
        '[admin]' "listen = 127.0.0.1:$admin" '[redis]' 'port = 1' '[rabbitmq]' 'port = 1' \
        '[cluster]' 'advertise = 127.0.0.1' "rpc_port = $rpc" '[log]' "file = $DIR/node.log" \
        '[tls]' "cert = $DIR/node.pem" "key = $DIR/node.key" >"$DIR/node.ini"
    certificate node
    "$CLUSTER_BINARY" -c "$DIR/node.ini" >"$DIR/node.out" 2>&1 &
    node=$!
    wait_for listens "$admin"
    curl -s --max-time 5 "http://127.0.0.1:$admin/metrics"
    kill_process $node TERM
}

# table_codes FILE: those of its table of codes.
table_codes() {
    awk '/^\| code / { inside = 1; next } !/^\|/ { inside = 0 } inside' "$1" | sed -nE 's/^\| (-?[0-9]+) \|.*/\1/p' | sort -n
}

# close_codes FILE: those of its table of close codes.
close_codes() {
    awk '/^\| (close code|关闭码) / { inside = 1; next } !/^\|/ { inside = 0 } inside' "$1" | cut -d '|' -f 2 |
        grep -oE '[0-9]{4}' | sort -un
}

served() {
    local file paths names metrics
    free_port
    ADMIN=127.0.0.1:$FREE
    configure
    start
    metrics=$(curl -s "http://$ADMIN/metrics")
    paths=$(echo "$metrics" | grep -o '^wspush_api_requests_total{route="/api/[a-z_]*' | sed 's/.*"//' | sort -u)
    names=$({
        a_cluster_node | sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p'
        printf '%s\n' process_resident_memory_bytes process_open_fds
    } | sort -u)
    expect 'metrics are there' 'yes yes' "$(echo "$names" | grep -qx wspush_clients && echo yes) $(
        echo "$names" | grep -qx wspush_cluster_links && echo yes)"
    for file in $(both README.md) $(both docs/api.md); do
        same "$file: every path of the API" "$paths" "$(sed -n 's#^| \(/api/[a-z_]*\) |.*#\1#p' "$file" | sort)"
        same "$file: every code" "$(echo "$metrics" | sed -nE 's/^wspush_api_requests_total.*code="(-?[0-9]+)".*/\1/p' | sort -nu)" \
            "$(table_codes "$file")"
    done
    for file in $(both docs/api.md); do
        # the server sends none of 1005, 1006 and 1011; the last four are the bounds of what close_client may use
        same "$file: every close code" "$({
            echo "$metrics" | sed -nE 's/^wspush_closes_total\{code="([0-9]+)".*/\1/p' | grep -vxE '1005|1006|1011'
            printf '%s\n' 3000 4399 4500 4999
        } | sort -n)" "$(close_codes "$file")"
    done
    for file in $(both docs/operations.md); do
        same "$file: every metric" "$names" "$(grep -E '^\| `(wspush|process)_' "$file" | cut -d '|' -f 2 | grep -oE '(wspush|process)_[a-z_]+' | sort)"
    done
    for file in "${DOCUMENTS[@]}" contrib/prometheus-rules.yml contrib/grafana-dashboard.json; do
        none "$file: paths named" "$(comm -23 <(grep -oE '/api/[a-z_]+[a-z]' "$file" | grep -vx '/api/send' | sort -u) <(echo "$paths"))"
        none "$file: metrics named" "$(comm -23 <(grep -oE '(wspush|process)_[a-z_]+[a-z]' "$file" |
            sed -E 's/_seconds_(bucket|count|sum)$/_seconds/' | sort -u) <(echo "$names"))"
    done
    halt
    ADMIN=
}

# The checks that troubleshooting.md begins with, of a server that runs.
first_checks() {
    local line said
    free_port
    ADMIN=127.0.0.1:$FREE
    configure
    start
    sign_up shop
    said=$(blocks docs/troubleshooting.md sh | sed -n "s/ *#.*//; s/localhost:7800/127.0.0.1:$PORT/; s/localhost:7801/$ADMIN/; /^curl/p" |
        while read -r line; do eval "${line/curl /curl -s --max-time 5 }"; done | tr -d '\r' | grep -aoE 'HTTP/1.1 [0-9]+|ready|"clientId"')
    expect 'troubleshooting.md: what the first checks print' 'HTTP/1.1 200 ready HTTP/1.1 101 "clientId"' "$(echo "$said" | tr '\n' ' ' | sed 's/ $//')"
    halt
    ADMIN=
}

# masked: its input without what differs from run to run.
masked() {
    sed -E 's/"clientId":"[^"]*"/"clientId":"…"/g; s/"connectedAt":[0-9]+/"connectedAt":…/g
        s/"(ticket|key)":"[^"]*"/"\1":"…"/; s/whsec_[^"]*/whsec_…/; s/"version":[0-9]+/"version":…/'
}

# The calls that api.md shows, in its order, with what it shows that they answer. A client is there meanwhile, with a
# ticket for the user and the group of these calls.
api_calls() {
    local line call='' shown count=0 receiver
    free_port # where nobody listens
    receiver=127.0.0.1:$FREE
    configure "[webhook]
allow = http://$receiver/"
    start
    call register "{'systemId':'shop','password':'open sesame'}" >/dev/null
    token_of 'open sesame'
    call ticket "{'userId':'ann','groups':['news']}" >/dev/null
    client ann shop -H="Ticket: $(jq -r .data.ticket "$DIR/body")"
    while read -r line; do
        case $line in
        '$ curl '*) call=${line#'$ curl '} ;;
        '{'*)
            shown=${call//localhost:7800/127.0.0.1:$PORT}
            shown=$(eval "curl -s --max-time 10 ${shown//127.0.0.1:8000/$receiver}")
            expect "api.md: ${call##*/}" "$(masked <<<"$line")" "$(masked <<<"$shown")"
            case $call in *set_password*) token_of 'open barley' ;; esac
            count=$((count + 1))
            ;;
        esac
    done < <(blocks docs/api.md console)
    expect 'api.md shows calls' yes "$([ $count -ge 8 ] && echo yes)"
    halt
    rm -r "$DIR/data" # others have their own shop
}

# token_of PASSWORD: logs in to shop.
token_of() {
    TOKEN=
    call login "{'systemId':'shop','password':'$1'}" >/dev/null
    TOKEN=$(jq -r .data.token "$DIR/body")
}

# The three lines of the chapter TLS.
tls_lines() {
    local lines folder=$DIR/tls server
    lines=$(blocks docs/deploy.md sh | grep -E '^(openssl|printf|curl --cacert) ')
    expect 'TLS: three lines' 3 "$(echo "$lines" | wc -l)"
    mkdir -p "$folder"
    free_port
    (
        cd "$folder" || exit 1
        ln -s "$BINARY" wspush
        eval "$(echo "$lines" | grep '^openssl')" 2>openssl.err || cat openssl.err
        eval "$(echo "$lines" | sed -n 's/ && .\/wspush.*//; /^printf/p')"
        printf '[common]\nhost = 127.0.0.1\n[admin]\nlisten =\n' >>tls.ini
        exec ./wspush -c tls.ini "$FREE" 2>log
    ) >"$DIR/tls.out" 2>&1 &
    server=$!
    wait_for listens "$FREE"
    expect 'TLS: what they do' '{"code":-1005,"msg":"wrong systemId or password","data":[]}' \
        "$(cd "$folder" && eval "$(echo "$lines" | sed -n "s/localhost:7800/localhost:$FREE/; /^curl/s/curl/curl -s/p")")"
    kill_process $server TERM
    expect 'TLS: nothing else is said' '' "$(cat "$DIR/tls.out")"
}

# --- links and files --------------------------------------------------------------------------

# anchors FILE: its headings as GitHub makes anchors of them.
anchors() {
    awk '/^```/ { inside = !inside } !inside && /^#+ /' "$1" | sed -E 's/^#+ //' |
        jq -Rr 'ascii_downcase | gsub("[^\\p{L}\\p{M}\\p{N}_ -]"; "") | gsub(" "; "-")'
}

# links FILE: the targets of its links and pictures.
links() {
    awk '/^```/ { inside = !inside; next } !inside' "$1" | tr '\n' ' ' | grep -o ']([^)]*)' | sed 's/^](//; s/)$//'
}

# files_linked FILE: the files that it links to, from the root of the tree; a twin counts as its original.
files_linked() {
    local folder
    folder=$(dirname "$1")
    links "$1" | grep -v '^#\|^https*:' | sed "s/#.*//; s,^,$folder/,; s/\.zh-CN//" | xargs -r realpath -m --relative-to . |
        sort
}

# tree: all files of the tree, one a line.
tree() {
    find . -name .git -prune -o -name .tools -prune -o -name build -prune -o -type f -print
}

linked() {
    local file link path anchor wrong folder
    tree >"$DIR/tree"
    for file in "${DOCUMENTS[@]}"; do
        folder=$(dirname "$file")
        none "$file: no two headings with one anchor" "$(anchors "$file" | grep -v CHANGELOG | sort | uniq -d |
            grep -vxE 'added|changed|fixed|removed')"
        wrong=$(links "$file" | while read -r link; do
            case $link in https://* | http://*) continue ;; esac
            path=${link%%#*} anchor=''
            [ "$link" = "$path" ] || anchor=${link#*#}
            [ -z "$path" ] || path=$folder/$path
            [ -e "${path:-$file}" ] || { echo "$link: no such file"; continue; }
            [ -z "$anchor" ] || anchors "${path:-$file}" | grep -qxF -- "$anchor" || echo "$link: no such heading"
        done)
        none "$file: links" "$wrong"
        # but for those that the chapters write, or `make install`
        none "$file: files named" "$(code "$file" | tr ' ' '\n' |
            grep -xE '(\./)?([a-zA-Z0-9_.*-]+/)*[a-zA-Z0-9_*-]+\.(c|h|sh|md|ini|conf|yaml|html|svg|png|js|py|go)' |
            sed 's#^\./##' | sort -u | grep -vxE '(node[12]|tls|wspush|configs/config)\.ini|(unit/)?test_MODULE\.c' | while read -r path; do
            case $path in
            *\**) compgen -G "$path" >"$DIR/found" ;;
            *) grep -qE "/${path//./\\.}$" "$DIR/tree" ;;
            esac || echo "$path"
        done)"
    done
}

# modules: architecture.md lists every module of the source, and no other.
modules() {
    same 'architecture.md: every module' "$(printf '%s\n' ./*.c | sed 's,./,,; s/\.c$//' | sort)" \
        "$(chapter docs/architecture.md "$(number docs/architecture.md Modules)" | sed -n 's/^| \([a-z_, ]*\) |.*/\1/p' |
            grep -vE '^(module|cluster build only)$' | tr -s ', ' '\n' | sort)"
}

# Words that are not the field's, and phrases that are not plain English.
WORDS="rooms?(?!, sockets)|(?<!dead-)letters?|mourn[a-z]*|bury|buried|burial|whoever|anew|(is|are) to be|\
parking lots?|audiences?|turn of the loop"
PHRASES="but for|for want of|ships no|not silence|counts whom|(is|are) so wanted|mend(ed|s)?|whom to become|empty: nobody|\
it all comes?|(waits?|come|came) already|(takes|needs) a (redis|rabbitmq)(?! cluster)|(is|are) of now|leaves the old in place|\
what cannot be used leaves|to be had|needs? rights|(is|are|was|were) taken for dead|living nodes?|not there any more|\
(is|are) no (address|socket|port|file|number)|goes? before the (key|file)|nobody new|of use no more|must be there once"

# words: the documents avoid both; the source avoids the phrases.
words() {
    local file
    for file in "${DOCUMENTS[@]}" docs/openapi.yaml config.ini contrib/* contrib/debian/* examples/*.*; do
        case $file in *.zh-CN.md) continue ;; esac
        [ -f "$file" ] || continue
        none "$file: words" "$(tr '\n' ' ' <"$file" | grep -owiP "$WORDS|$PHRASES")"
    done
    for file in ./*.[ch]; do
        [ -z "$(tr '\n' ' ' <"$file" | sed 's/ \* / /g; s/  */ /g' | grep -owiP "$PHRASES")" ] ||
            bad "$file: phrases" "$(tr '\n' ' ' <"$file" | sed 's/ \* / /g; s/  */ /g' | grep -owiP "$PHRASES")"
    done
}

# functions: those that architecture.md names, as `name()`, are defined, in the file at the beginning of their line if any.
functions() {
    local line name file wrong
    wrong=$(grep -oE '^\| [a-z_]+\.[ch] .*|`[a-z0-9_]+\(\)`' docs/architecture.md | while read -r line; do
        file=$(echo "$line" | sed -nE 's/^\| ([a-z_]+\.[ch]) \|.*/\1/p')
        [ -z "$file" ] || line=$(echo "$line" | cut -d '|' -f 3)
        for name in $(echo "$line" | grep -oE '`[a-z0-9_]+\(\)`' | tr -d '`()'); do
            case $name in poll | writev | send | recv | accept | main) continue ;; esac
            if [ -n "$file" ]; then set -- "$file"; else set -- ./*.[ch]; fi
            grep -qsE "^[a-z].*[ *]$name\(|^$name\(" "$@" || echo "$name ${file:+in $file}"
        done
    done)
    none 'architecture.md: functions named' "$wrong"
}

# --- messages, rules, the page ----------------------------------------------------------------

# literals: what the source says, with strings that are written in pieces put together.
literals() {
    cat ./*.[ch] | tr '\n' ' ' | sed -E 's/" +"//g'
}

# What the C library says is not in the source.
system_said='Address already in use|Permission denied'

# symptoms FILE: the messages in the first cells of its tables, one a line.
symptoms() {
    grep '^| ' "$1" | cut -d '|' -f 2 | grep -o '`[^`]*`' | tr -d '`'
}

messages() {
    local message part wrong
    literals >"$DIR/literals"
    same 'both languages quote the same messages' "$(symptoms docs/troubleshooting.md)" \
        "$(symptoms docs/troubleshooting.zh-CN.md)"
    expect 'there are many' yes "$([ "$(symptoms docs/troubleshooting.md | wc -l)" -gt 60 ] && echo yes)"
    wrong=$(symptoms docs/troubleshooting.md | grep -vx '".*' | while read -r message; do
        echo "${message//…/$'\n'}" | sed 's/^ *//; s/ *$//' | grep . | grep -vE "$system_said" | while read -r part; do
            grep -qF -- "$part" "$DIR/literals" || echo "$message"
        done
    done)
    none 'the source has every message quoted' "$wrong"
}

prometheus_files() {
    local file
    awk '/^scrape_configs:/ { scrape = 1 } /^```/ { scrape = 0 } scrape' docs/operations.md >"$DIR/scrape.yaml"
    for file in $(both docs/operations.md); do
        same "$file: every alert" "$(sed -n 's/^ *- alert: //p' contrib/prometheus-rules.yml | sort)" \
            "$(grep '^| Wspush' "$file" | cut -d '|' -f 2 | grep -o 'Wspush[A-Za-z]*' | sort)"
    done
    expect_match 'promtool check config' '0 *SUCCESS*' "$(promtool check config "$DIR/scrape.yaml" >"$DIR/said" 2>&1
        echo "$? $(cat "$DIR/said")")"
}

# The size of the binary, which grows with what is built in.
size() {
    local file said
    if [ "$(uname -m)" != x86_64 ]; then
        echo 'the documents give the size of the binary on x86_64: it is not compared'
        return
    fi
    strip -o "$DIR/stripped" build/release/wspush
    said=$(sed -nE 's/^\| stripped binary.*\*\*([0-9]+) kB\*\*.*/\1/p' docs/benchmarks.md)
    expect_match "benchmarks.md: the binary's size, give or take 15 %" 'yes *' "$(wc -c <"$DIR/stripped" |
        awk -v said="${said:-0}" '{ print ($1 / said > 850 && $1 / said < 1150 ? "yes" : "no"), $1, said }')"
    for file in $(both README.md); do
        expect "$file: it is the same there" 1 "$(grep -c "$said kB" "$file")"
    done
}

PARTS=(languages makefile configuration signals served api_calls first_checks tls_lines linked modules words functions messages prometheus_files size)
[ $# = 0 ] || PARTS=("$@")
for part in "${PARTS[@]}"; do
    "$part"
done
finish
