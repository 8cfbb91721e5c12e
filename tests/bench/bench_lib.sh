# bench_lib.sh - what the scripts that measure share; to be sourced behind lib.sh or cluster_lib.sh.
#
# A run of the generator (tests/bench/bench.c) is a line of NAME=VALUE, kept in $DIR/figures.CASE.WHO, one
# line for each round.
# shellcheck shell=bash disable=SC2034
BENCH=${BENCH:-build/release/bench}
SERVER_CPU=0 CPU=1 # where there are two; the generator has one for itself
BEGUN=$SECONDS

# serve BINARY: starts a server for the measurements, with the configuration that a user has by
# default, and the lines of MORE; but nobody is told who comes and goes, which would be the square of the clients. With
# RECEIVER=URL, which MORE allows, the system has a webhook.
MORE=()
serve() {
    WSPUSH=$1
    printf '%s\n' '[common]' 'host = 127.0.0.1' "data_dir = $DIR/data" 'drain = 0' \
        '[notice]' 'scope = off' '[admin]' 'listen =' '[log]' "file = $DIR/log" "${MORE[@]}" >"$DIR/config.ini"
    start
    pin "$SERVER"
    [ -n "$TOKEN" ] || sign_up bench # one token is good for all starts
    [ -z "${RECEIVER-}" ] || call set_webhook "{'url':'$RECEIVER'}" >"$DIR/hooked"
}

# pin PID: with its threads.
pin() {
    [ "$(nproc)" = 1 ] || taskset -acp $SERVER_CPU "$1" >/dev/null
}

# run CASE WHO ARGUMENT...: one run of the generator.
run() {
    local name=$1 who=$2
    shift 2
    "$BENCH" "$@" cpu=$CPU server_cpu=$SERVER_CPU >"$DIR/line" 2>"$DIR/error" ||
        bad "$name, $who: bench $*" "$(cat "$DIR/line" "$DIR/error")"
    cat "$DIR/line" >>"$DIR/figures.$name.$who"
}

# against CASE WHO BINARY ARGUMENT...: a run against a server of its own.
against() {
    local name=$1 who=$2
    serve "$3"
    shift 3
    run "$name" "$who" "$@" port="$PORT" pid="$SERVER" token="$TOKEN"
    halt
}

# figures CASE WHO KEY: prints the figure of each round.
figures() {
    sed -n "s/.* $3=\([0-9.]*\).*/\1/p" "$DIR/figures.$1.$2"
}

# middle: prints the median of its input.
middle() {
    sort -g | awk '{ at[NR] = $1 } END { print NR ? at[int((NR + 1) / 2)] : "nan" }'
}

# figure CASE WHO KEY: prints the median of the rounds.
figure() {
    figures "$@" | middle
}

# ratios CASE WHO KEY CASE WHO: prints for each round how many times the second one's figure the
# first one's is.
ratios() {
    paste <(figures "$1" "$2" "$3") <(figures "$4" "$5" "$3") |
        awk 'NF == 2 && $2 > 0 { printf "%.3f\n", $1 / $2 }'
}

# shares CASE WHO KEY KEY: prints for each round how many times the first figure the second one is.
shares() {
    paste <(figures "$1" "$2" "$4") <(figures "$1" "$2" "$3") |
        awk 'NF == 2 && $2 > 0 { printf "%.3f\n", $1 / $2 }'
}

# ratio: the median of ratios.
ratio() {
    ratios "$@" | middle
}

# calc EXPRESSION
calc() {
    awk "BEGIN { print ($1) }"
}

# ratio_line TEXT RATIOS-ARGUMENT...: a line of the table of ratios.
ratio_line() {
    local text=$1
    shift
    printf '  %-58s %7.2f   (%s)\n' "$text" "$(ratio "$@")" "$(ratios "$@" | xargs printf '%.2f ' | sed 's/ $//')"
}

# goal TEXT VALUE least|most LIMIT [UNIT]: a line of the list of goals.
goal() {
    local verdict=ok sign='>='
    [ "$3" = least ] || sign='<='
    case $2 in # a run that failed has no figure
    '' | *nan*) verdict=missed ;;
    *) [ "$(calc "$2 $sign $4")" = 1 ] || verdict=missed ;;
    esac
    printf '  %-6s %-52s %9.4g %s %s%s\n' $verdict "$1" "$2" "$sign" "$4" "${5:+ $5}"
}

# in_turn ROUND WHO WHO: prints them, in every other round the second one first.
in_turn() {
    [ $(($1 % 2)) = 1 ] && echo "$2 $3" || echo "$3 $2"
}

# machine: prints what this is measured on.
machine() {
    echo "$(nproc) cores, $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1), Linux $(uname -r)"
}

# spent: whether so many seconds have passed since the start.
spent() {
    [ $((SECONDS - BEGUN)) -ge "$1" ]
}

# conclude: ends all; the status says whether something was lost or failed.
conclude() {
    local failed
    failed=$(grep -c bad "$DIR/results")
    halt
    stop
    rm -rf "$DIR"
    if [ "$failed" = 0 ]; then
        echo "nothing was lost, repeated, out of order or misdelivered; $((SECONDS - BEGUN)) s in all"
    else
        echo "$failed runs FAILED; $((SECONDS - BEGUN)) s in all"
    fi
    exit $((failed > 0))
}
