#!/usr/bin/env bash
# documents.sh [PART...] - what the documents say is so: the README in both languages, CLUSTER.md and HACKING.md.
# Keys, paths, metrics, options, signals, links, files and messages are looked up where they come from, and
# what is shown is run. tests/cluster/readme.sh has the chapter on clusters, tests/e2e/clients.sh the clients.
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

READMES=(README.md README.zh-CN.md)
DOCUMENTS=("${READMES[@]}" CLUSTER.md HACKING.md)
BINARY=$PWD/$WSPUSH
case $WSPUSH in /*) BINARY=$WSPUSH ;; esac
CLUSTER_BINARY=${CLUSTER_WSPUSH:-build/cluster-asan/wspush}

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

# number TITLE: of a chapter of README.md.
number() {
    awk -v title="## $1" '/^```/ { inside = !inside } !inside && /^## / { count++ } $0 == title { print count }' README.md
}

# --- both languages ---------------------------------------------------------------------------

# comparable FILE: its code, without comments and without pictures, whose words are translated.
comparable() {
    awk '/^```mermaid/ { picture = 1 } !picture { print } /^```$/ { picture = 0 }' <(blocks "$1") |
        sed -E 's/ +[#;] .*$//'
}

# outline FILE: the levels of its headings, in their order.
outline() {
    awk '/^```/ { inside = !inside } !inside && /^#+ / { print $1 }' "$1"
}

# columns FILE: how many cells each row of a table has.
columns() {
    awk '/^```/ { inside = !inside } !inside && /^\|/ { gsub(/`[^`]*`/, ""); print gsub(/\|/, "") }' "$1"
}

languages() {
    same 'both READMEs have the same code' "$(comparable README.md)" "$(comparable README.zh-CN.md)"
    same 'the same headings' "$(outline README.md)" "$(outline README.zh-CN.md)"
    same 'tables of the same form' "$(columns README.md)" "$(columns README.zh-CN.md)"
    same 'as many pictures' "$(blocks README.md mermaid | grep -c '^```m')" "$(blocks README.zh-CN.md mermaid | grep -c '^```m')"
    expect 'each names the other at its top' '1 1' \
        "$(head -n 5 README.md | grep -c '(README.zh-CN.md)') $(head -n 5 README.zh-CN.md | grep -c '(README.md)')"
    none 'Chinese has its own punctuation' "$(awk '/^```/ { inside = !inside; next } !inside' README.zh-CN.md |
        jq -Rr 'gsub("`[^`]*`"; "`") | select(test("\\p{Han}[,;!?]"))')"
    for file in "${DOCUMENTS[@]}"; do
        none "$file: no white space at the end of a line" "$(grep -n '[[:space:]]$' "$file")"
        expect "$file: blocks of code end" 0 $(($(grep -c '^```' "$file") % 2))
    done
}

# --- names ------------------------------------------------------------------------------------

# make's targets, one a line.
targets() {
    sed -n 's/^\.PHONY: //p' Makefile | tr ' ' '\n' | grep -vx FORCE
    echo wspush
}

named_targets() {
    code "$1" | sed -E "s/#.*//; s/=('[^']*'|\"[^\"]*\")/=/g" | grep -oE '(^|[ (])make( +[a-zA-Z][^ ;&|)]*)+' |
        sed -E 's/.*make +//' | tr -s ' ' '\n' | grep -v = | sort -u
}

makefile() {
    local file
    for file in "${DOCUMENTS[@]}" BENCHMARKS.md; do
        none "$file: targets of make" "$(comm -23 <(named_targets "$file") <(targets | sort -u))"
    done
    expect 'README.md names targets' yes "$([ "$(named_targets README.md | wc -l)" -gt 12 ] && echo yes)"
    for file in "${READMES[@]}"; do
        expect "$file: the two commands" '1 1' "$(blocks "$file" sh |
            grep -c '^sudo apt-get install -y make && make deps run  ') $(
            blocks "$file" sh | grep -c '^make test-deps test  ')"
    done
}

# keys FILE: of config.ini, "[SECTION] KEY = DEFAULT" a line.
keys() {
    awk '/^\[/ { section = $0 } /^[a-z_]+ =/ { print section, $0 }' "$1"
}

# documented_keys FILE: the same of a README's table.
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
    for file in "${READMES[@]}"; do
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
    for file in "${READMES[@]}"; do
        same "$file: signals" "$known" "$(grep -E '^\| SIG' "$file" | cut -d '|' -f 2 | grep -o 'SIG[A-Z0-9]*' | sort)"
    done
    for file in "${DOCUMENTS[@]}"; do
        none "$file: signals named" "$(comm -23 <(grep -o 'SIG[A-Z0-9][A-Z0-9]*' "$file" | sort -u) \
            <({ echo "$known" && sed -n 's/.*sigaction(\(SIG[A-Z]*\), &ignore,.*/\1/p' wspush.c; } | sort))"
    done
}

# --- against servers --------------------------------------------------------------------------

# a_cluster_node: /metrics of a node of a cluster, which need not have joined.
a_cluster_node() {
    local node port rpc admin
    free_port; port=$FREE
    free_port; rpc=$FREE
    free_port; admin=$FREE
    printf '%s\n' '[common]' 'host = 127.0.0.1' "port = $port" 'cluster = true' 'crypto_key = 0123456789abcdef' \
        '[admin]' "listen = 127.0.0.1:$admin" '[redis]' 'port = 1' '[rabbitmq]' 'port = 1' \
        '[cluster]' 'advertise = 127.0.0.1' "rpc_port = $rpc" '[log]' "file = $DIR/node.log" >"$DIR/node.ini"
    "$CLUSTER_BINARY" -c "$DIR/node.ini" >"$DIR/node.out" 2>&1 &
    node=$!
    wait_for listens "$admin"
    curl -s --max-time 5 "http://127.0.0.1:$admin/metrics"
    kill_process $node TERM
}

served() {
    local file paths names
    free_port
    ADMIN=127.0.0.1:$FREE
    configure
    start
    paths=$(curl -s "http://$ADMIN/metrics" | grep -o '^wspush_api_requests_total{route="/api/[a-z_]*' |
        sed 's/.*"//' | sort -u)
    names=$(a_cluster_node | sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' | sort)
    expect 'metrics are there' 'yes yes' "$(echo "$names" | grep -qx wspush_clients && echo yes) $(
        echo "$names" | grep -qx wspush_cluster_links && echo yes)"
    for file in "${READMES[@]}"; do
        same "$file: every path of the API" "$paths" "$(sed -n 's#^| \(/api/[a-z_]*\) |.*#\1#p' "$file" | sort)"
    done
    for file in "${DOCUMENTS[@]}"; do
        none "$file: paths named" "$(comm -23 <(grep -oE '/api/[a-z_]+[a-z]' "$file" | grep -vx '/api/send' | sort -u) <(echo "$paths"))"
        none "$file: metrics named" "$(comm -23 <(grep -oE 'wspush_[a-z_]+[a-z]' "$file" |
            sed -E 's/_seconds_(bucket|count|sum)$/_seconds/' | sort -u) <(echo "$names"))"
    done
    same 'both name the same metrics' "$(grep -oE 'wspush_[a-z_]+' README.md)" "$(grep -oE 'wspush_[a-z_]+' README.zh-CN.md)"
    for file in "${READMES[@]}"; do
        walk "$file"
    done
    halt
    ADMIN=
}

# fresh_lines FILE FROM: those behind the first FROM, without empty ones, sorted: an answer and a push come
# from two programs. Ids are masked.
fresh_lines() {
    tail -n +$(($2 + 1)) "$1" | grep -v '^$' | masked
}

masked() {
    sed -E 's/"clientId":"[0-9a-f]{16}"/"clientId":"ID"/g' | sort
}

is_said() {
    [ "$(fresh_lines "$DIR/said" "$2")" = "$1" ]
}

# walk FILE: the commands of its first chapter that shows some, one after the other in one shell, with
# what they are to print.
# shellcheck disable=SC2034 # TOKEN is the walk's own
walk() {
    local line command='' wanted='' id='' pid='' step=0 TOKEN=''
    blocks "$1" console | grep -v '^```' >"$DIR/walk"
    expect "$1: there is a walk" yes "$([ "$(grep -c '^\$ ' "$DIR/walk")" -ge 6 ] && echo yes)"
    : >"$DIR/said"
    # an answer has no line feed: it gets one, and leaves in one write
    curl() {
        local answer
        answer=$(command curl --max-time 10 "$@") && echo "$answer"
    }
    while IFS= read -r line <&3 || [ -n "$line" ]; do
        if [ "${line#\$ }" = "$line" ]; then
            wanted+=$line$'\n'
            continue
        fi
        take_step "$1"
        command=${line#\$ } wanted=''
    done 3< <(cat "$DIR/walk"; echo "\$ end")
    unset -f curl
    [ -z "$pid" ] || { kill "$pid"; wait "$pid"; } 2>/dev/null
    # the next one may register it again
    halt
    rm -rf "$DIR/data"
    start
}

# take_step FILE: of a walk, whose variables it uses.
take_step() {
    local before
    [ -n "$command" ] || return 0
    step=$((step + 1))
    before=$(wc -l <"$DIR/said")
    command=${command//localhost:7800/127.0.0.1:$PORT}
    command=${command//localhost:7801/$ADMIN}
    [ -z "$id" ] || command=${command//$shown/$id}
    eval "$command" >>"$DIR/said" 2>&1
    [ "${command%&}" = "$command" ] || pid=$!
    wanted=$(echo "$wanted" | grep -v '^$' | masked)
    wait_for is_said "$wanted" "$before"
    same "$1: step $step: ${command:0:60}" "x$wanted" "x$(fresh_lines "$DIR/said" "$before")"
    if [ -z "$id" ] && grep -q '^{.*"clientId"' "$DIR/said"; then
        id=$(jq -r .data.clientId <(grep '"clientId"' "$DIR/said"))
        shown=$(grep -o '"clientId":"[0-9a-f]*"' "$DIR/walk" | head -n 1 | cut -d '"' -f 4)
    fi
}

# What a start from a terminal prints.
welcome() {
    local file admin
    if ! script --version >"$DIR/version" 2>&1; then
        echo 'script(1) of util-linux is not there: what a start prints on a terminal is not compared'
        return
    fi
    free_port; admin=$FREE
    free_port
    configure
    sed -i -e "s/^host = .*/host = 0.0.0.0/; s/^listen =.*/listen = 127.0.0.1:$admin/" "$DIR/config.ini"
    script -qec "echo \$\$ >$DIR/pid; exec '$BINARY' -c '$DIR/config.ini' $FREE" "$DIR/typescript" \
        </dev/null >"$DIR/printed" 2>&1 &
    wait_for has_lines "$DIR/printed" 4
    kill "$(cat "$DIR/pid")"
    wait $!
    for file in "${READMES[@]}"; do
        same "$file: what make run prints" "$(tr -d '\r' <"$DIR/printed" | sed "s/$FREE/7800/; s/$admin/7801/")" \
            "$(blocks "$file" text | grep -v '^```' | head -n 4)"
    done
}

# The three lines of the chapter TLS.
tls_lines() {
    local lines folder=$DIR/tls server
    lines=$(blocks README.md sh | grep -E '^(openssl|printf|curl --cacert) ')
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

linked() {
    local file link path anchor wrong
    for file in "${DOCUMENTS[@]}" BENCHMARKS.md; do
        none "$file: no two headings with one anchor" "$(anchors "$file" | sort | uniq -d)"
        wrong=$(links "$file" | while read -r link; do
            case $link in https://* | http://*) continue ;; esac
            path=${link%%#*} anchor=''
            [ "$link" = "$path" ] || anchor=${link#*#}
            [ -e "${path:-$file}" ] || { echo "$link: no such file"; continue; }
            [ -z "$anchor" ] || anchors "${path:-$file}" | grep -qxF -- "$anchor" || echo "$link: no such heading"
        done)
        none "$file: links" "$wrong"
    done
    same 'both READMEs link to the same files' "$(links README.md | grep -v '^#' | grep -v README | sort)" \
        "$(links README.zh-CN.md | grep -v '^#' | grep -v README | sort)"
    for file in "${DOCUMENTS[@]}" BENCHMARKS.md; do
        # but for those that the chapters write, or `make install`
        none "$file: files named" "$(code "$file" | tr ' ' '\n' |
            grep -xE '(\./)?([a-zA-Z0-9_.*-]+/)*[a-zA-Z0-9_*-]+\.(c|h|sh|md|ini|conf|yaml|html|svg|png|js|py|go)' |
            sed 's#^\./##' | sort -u | grep -vxE '(node[12]|tls|wspush|configs/config)\.ini' | while read -r path; do
            compgen -G "$path" >"$DIR/found" || compgen -G "contrib/$path" >"$DIR/found" ||
                compgen -G "examples/$path" >"$DIR/found" || echo "$path"
        done)"
    done
}

# --- messages, rules, the page ----------------------------------------------------------------

# literals: what the source says, with strings that are written in pieces put together.
literals() {
    cat ./*.c | tr '\n' ' ' | sed -E 's/" +"//g'
}

# What the C library says is not in the source.
system_said='Address already in use|Permission denied'

# symptoms FILE: the messages in the first cells of the table, one a line.
symptoms() {
    chapter "$1" "$(number Troubleshooting)" | grep '^| ' | tail -n +2 | cut -d '|' -f 2 | grep -o '`[^`]*`' | tr -d '`'
}

messages() {
    local message part wrong
    literals >"$DIR/literals"
    same 'both READMEs quote the same messages' "$(symptoms README.md)" "$(symptoms README.zh-CN.md)"
    expect 'there are many' yes "$([ "$(symptoms README.md | wc -l)" -gt 25 ] && echo yes)"
    wrong=$(symptoms README.md | while read -r message; do
        echo "${message//…/$'\n'}" | sed 's/^ *//; s/ *$//' | grep . | grep -vE "$system_said" | while read -r part; do
            grep -qF -- "$part" "$DIR/literals" || echo "$message"
        done
    done)
    none 'the source has every message quoted' "$(echo "$wrong" | grep -vx Upgrade)"
}

prometheus_files() {
    awk '/^groups:/ { rules = 1 } /^```/ { rules = 0 } rules' README.md >"$DIR/rules.yaml"
    awk '/^scrape_configs:/ { scrape = 1 } /^```/ { scrape = 0 } scrape' README.md >"$DIR/scrape.yaml"
    expect_match 'promtool check rules' '0 *SUCCESS: [1-9]* rules found*' \
        "$(promtool check rules "$DIR/rules.yaml" >"$DIR/said" 2>&1
        echo "$? $(cat "$DIR/said")")"
    expect_match 'promtool check config' '0 *SUCCESS*' "$(promtool check config "$DIR/scrape.yaml" >"$DIR/said" 2>&1
        echo "$? $(cat "$DIR/said")")"
}

shown_clients() {
    local file language
    same 'the script that is shown is that of browser.html' \
        "$(awk '/^<\/script>/ { exit } shown { print } /^<script>/ { shown = 1 }' examples/browser.html)" \
        "$(blocks README.md js | grep -v '^```')"
    for file in js:javascript py:python go:go sh:bash; do
        language=${file#*:} file=examples/client.${file%:*}
        same "what is shown of $file is all of it" "$(cat "$file")" "$(blocks README.md "$language" | grep -v '^```')"
    done
}

# The figure of the binary's size, which grows with what is built in.
size() {
    local file said
    if [ "$(uname -m)" != x86_64 ]; then
        echo 'the size of the binary is that on x86_64: it is not compared'
        return
    fi
    strip -o "$DIR/stripped" build/release/wspush
    for file in "${READMES[@]}"; do
        said=$(chapter "$file" "$(number Figures)" | grep -oE '\| [0-9]+ kB' | tr -dc 0-9)
        expect_match "$file: the binary's size, give or take 15 %" 'yes *' "$(wc -c <"$DIR/stripped" |
            awk -v said="${said:-0}" '{ print ($1 / said > 850 && $1 / said < 1150 ? "yes" : "no"), $1, said }')"
        expect "$file: it is the same in both places" 1 "$(chapter "$file" 1 | grep -c "$said kB")"
    done
}

PARTS=(languages makefile configuration signals served welcome tls_lines linked messages prometheus_files shown_clients size)
[ $# = 0 ] || PARTS=("$@")
for part in "${PARTS[@]}"; do
    "$part"
done
finish
