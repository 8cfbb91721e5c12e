#!/usr/bin/env bash
# bench.sh [quick|smoke] - measures a server that is alone, in turn with the bare one of
# tests/bench/bench.c, which is the limit of the machine. Ratios of one round count; the figures themselves
# are the machine's. A goal that is missed is printed and is no error, but whatever was lost,
# repeated, out of order or misdelivered is one. smoke tests the generator itself, and times nothing.
# build: asan/wspush
MODE=${1:-full}
[ "$MODE" = smoke ] || WSPUSH=${WSPUSH:-build/release/wspush}
[ "$MODE" != smoke ] || BENCH=${BENCH:-build/asan/bench}
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"
# shellcheck source=tests/bench/bench_lib.sh
. tests/bench/bench_lib.sh
BINARY=$WSPUSH NOPOLLERS=build/nopollers/wspush
CROWDS=(0 100 300 1000 3000 10000 19000) # quiet clients in the picture

case $MODE in
full) ROUNDS=7 MS=2000 IDLE=25000 ROUNDS_END=430 ;; # each idle client is pinged once in 25 s
quick) ROUNDS=1 MS=800 IDLE=1000 ROUNDS_END=60 ;;
smoke) ;;
*) echo "usage: bench.sh [quick|smoke]" && exit 2 ;;
esac

# --- smoke ------------------------------------------------------------------------------------

# works NAME PATTERN ARGUMENT...: a case that goes well.
works() {
    local name=$1 pattern=$2
    shift 2
    "$BENCH" "$@" >"$DIR/line" 2>"$DIR/error"
    expect_match "$name" "0 $pattern lost=0 repeated=0 disordered=0 stray=0 damaged=0 closed=0 refused=0" \
        "$? $(cat "$DIR/line" "$DIR/error")"
}

# spoilt SPOIL COUNTER ARGUMENT...: the bare server does something wrong, and it is counted.
spoilt() {
    local spoil=$1 counter=$2
    shift 2
    "$BENCH" "$@" patience=300 spoil="$spoil" >"$DIR/line" 2>"$DIR/error"
    expect_match "$1: it is counted when the server does $spoil" "1 *[ ]$counter=[1-9]*" \
        "$? $(cat "$DIR/line" "$DIR/error")"
}

smoke() {
    local who where few='ms=300 count=200' fan='case=fanout*messages=200 *http_p50=*last_p50=*'
    free_port
    configure "[notice]
scope = off
[websocket]
ping = 1
pong_timeout = 2
message_rate = 100000
[webhook]
allow = http://127.0.0.1:$FREE/"
    local receiver=$FREE
    start
    sign_up bench
    for who in bare server; do
        where=''
        [ $who = bare ] || where="port=$PORT pid=$SERVER token=$TOKEN"
        # shellcheck disable=SC2086 # lists of words
        {
            works "$who: fan-out" "$fan" fanout clients=20 ms=5000 count=200 $where
            works "$who: fan-out, 4 in flight" "$fan" fanout clients=20 inflight=4 ms=5000 count=200 $where
            works "$who: unicast" '*messages=*latency_p50=*' unicast clients=20 http=4 $few $where
            works "$who: handshakes" '*clients=200 rate=*' handshakes clients=200 $where
            [ $who = bare ] ||
                works "$who: handshakes with a ticket" '*clients=200 rate=*' handshakes clients=200 $where \
                    "system=bench&ticket=$(post /api/ticket '{"userId":"u1"}' | jq -r .data.ticket)"
            works "$who: quiet" '*latency_p50=*' quiet clients=100 count=10 $where
        }
    done
    for who in visits messages; do
        works "server: $who, to a webhook" '*clients=50 *rate=*' $who clients=50 ms=300 count=1000 \
            "port=$PORT" "pid=$SERVER" "token=$TOKEN" "receiver=$receiver"
    done
    works 'server: idle, pings answered' '*pings=[1-9]*' idle clients=100 ms=3500 \
        "port=$PORT" "pid=$SERVER" "token=$TOKEN"
    stop
    works 'start' '*resident=[1-9]*start_p50=*' start count=2 program="$WSPUSH" config="$DIR/config.ini" port="$PORT"

    for who in 'fanout clients=20 inflight=2 count=200 every=1500' 'unicast clients=20 http=4 count=200 every=80'; do
        # shellcheck disable=SC2086
        {
            spoilt lose lost $who
            spoilt repeat repeated $who
            spoilt stray stray $who
            spoilt damage damaged $who
            spoilt close closed $who
        }
    done
    spoilt swap disordered fanout clients=20 inflight=2 count=200 every=1500
    finish
}

# --- measuring --------------------------------------------------------------------------------

declare -A ARGUMENTS=(
    [fan1]='fanout clients=1000' [fan10]='fanout clients=10000'
    [fan4]='fanout clients=1000 inflight=4' [fan16]='fanout clients=1000 inflight=16'
    [uni8]='unicast clients=10000 http=8' [uni1]='unicast clients=10000 http=1'
    [alone]='unicast clients=1 http=1' [shake]='handshakes clients=10000'
)
declare -A TEXT=(
    [fan1]='fan-out to 1,000 clients, 1 message in flight'
    [fan10]='fan-out to 10,000 clients, 1 message in flight'
    [fan4]='fan-out to 1,000 clients, 4 messages in flight'
    [fan16]='fan-out to 1,000 clients, 16 messages in flight'
    [uni8]='unicast among 10,000 clients, 8 HTTP connections'
    [uni1]='unicast among 10,000 clients, 1 HTTP connection'
    [alone]='unicast to 1 client, no other, 1 HTTP connection'
    [shake]='handshakes of 10,000 clients, 128 under way'
    [visits]='events to a webhook, clients that come and go'
    [messages]='events to a webhook, messages of clients'
)
CASES=(fan1 fan10 fan4 fan16 uni8 uni1 alone shake)

# round NUMBER
# shellcheck disable=SC2086 # lists of words
round() {
    local name who
    for name in "${CASES[@]}"; do
        for who in $(in_turn "$1" bare wspush); do
            # shellcheck disable=SC2086 # lists of words
            case $who in
            bare) run "$name" bare ${ARGUMENTS[$name]} ms=$MS ;;
            *) against "$name" wspush "$BINARY" ${ARGUMENTS[$name]} ms=$MS ;;
            esac
        done
        printf 'round %d: %s: wspush %s, bare %s, ratio %s\n' "$1" "${TEXT[$name]}" \
            "$(figures "$name" wspush rate | tail -n 1)" "$(figures "$name" bare rate | tail -n 1)" \
            "$(ratios "$name" wspush rate "$name" bare | tail -n 1)"
    done
    against ticket wspush "$BINARY" ${ARGUMENTS[shake]} "system=bench&ticket=$TICKET"
    echo "round $1: the same with a ticket: ratio $(ratios ticket wspush rate shake wspush | tail -n 1)"
    against resumable wspush "$BINARY" ${ARGUMENTS[fan10]} ms=$MS 'system=bench&resume='
    echo "round $1: fan-out to clients that can resume: ratio $(ratios resumable wspush rate fan10 wspush | tail -n 1)"
    MORE=('[webhook]' 'allow = http://127.0.0.1:1/')
    RECEIVER=http://127.0.0.1:1/ against dead wspush "$BINARY" ${ARGUMENTS[fan10]} ms=$MS # nobody listens there
    echo "round $1: fan-out with a dead receiver of webhooks: ratio $(ratios dead wspush rate fan10 wspush | tail -n 1)"
    free_port
    MORE=('[websocket]' 'message_rate = 100000' '[webhook]' "allow = http://127.0.0.1:$FREE/")
    against visits wspush "$BINARY" visits clients=5000 "receiver=$FREE"
    against messages wspush "$BINARY" messages clients=1000 ms=$MS count=10000000 "receiver=$FREE"
    MORE=()
    echo "round $1: events to a webhook: of visits $(figures visits wspush rate | tail -n 1)," \
        "of messages $(figures messages wspush rate | tail -n 1)"
    against quiet wspush "$BINARY" quiet clients=19000 count=300
    echo "round $1: ping among 19,000 quiet clients: p99 $(figures quiet wspush latency_p99 | tail -n 1) us"
}

once() {
    against idle wspush "$BINARY" idle clients=19000 ms="$IDLE"
    echo "19,000 idle clients: $(cat "$DIR/line")"
    free_port
    run start wspush start count=9 program="$BINARY" config="$DIR/config.ini" port="$FREE"
    echo "start: $(cat "$DIR/line")"
    strip -o "$DIR/stripped" "$BINARY"
    SIZE=$(stat -c %s "$DIR/stripped")
}

# --- the picture ------------------------------------------------------------------------------

# What the picture shows, a line for each crowd: clients, p50 and p99 in milliseconds and resident
# memory in MiB, with pollers and without.
picture_data() {
    local crowd who
    for crowd in "${CROWDS[@]}"; do
        for who in wspush nopollers; do
            local binary=$BINARY
            [ $who = wspush ] || binary=$NOPOLLERS
            against "crowd$crowd" $who "$binary" quiet clients=$((crowd ? crowd : 1)) count=200
        done
        echo "$crowd quiet clients: pollers $(figure "crowd$crowd" wspush latency_p50) us, no pollers" \
            "$(figure "crowd$crowd" nopollers latency_p50) us"
    done
    {
        printf 'clients\tp50_ms\tp99_ms\tresident_MiB\tnopollers_p50_ms\tnopollers_p99_ms\tnopollers_resident_MiB\n'
        for crowd in "${CROWDS[@]}"; do
            printf '%s' "$crowd"
            for who in wspush nopollers; do
                printf '\t%s' "$(calc "$(figure "crowd$crowd" $who latency_p50) / 1000")" \
                    "$(calc "$(figure "crowd$crowd" $who latency_p99) / 1000")" \
                    "$(calc "$(figure "crowd$crowd" $who resident) / 1048576")"
            done
            echo
        done
    } >build/bench.tsv
}

# The column 0 clients stands where 30 would on the logarithmic axis.
picture() {
    if ! command -v gnuplot >/dev/null; then
        echo 'there is no gnuplot (make bench-deps): no picture, but its figures are in build/bench.tsv'
        return
    fi
    gnuplot <<'PLOT' || bad 'the picture' 'gnuplot failed'
set terminal svg size 960,420 dynamic font 'Helvetica,Arial,sans-serif,13' background '#ffffff'
set output 'build/bench.svg'
set datafile separator '\t'
set multiplot layout 1,2 title 'wspush with quiet clients, with and without pollers' font ',16' offset 0,-0.3
set logscale x
set xrange [24:26000]
set xtics ('0' 30, '100' 100, '300' 300, '1,000' 1000, '3,000' 3000, '10,000' 10000, '19,000' 19000) rotate by -35
set xlabel 'quiet clients (log scale)' offset 0,0.3
set grid ytics lc rgb '#d8d8d8' lt 1 lw 1
set border 3 lc rgb '#555555'
set tics nomirror out
set key top left reverse Left samplen 2 spacing 1.2
set lmargin 9
set bmargin 5
at(x) = x == 0 ? 30 : x
set style line 1 lc rgb '#0b6e4f' lw 2.5 pt 7 ps 0.7
set style line 2 lc rgb '#0b6e4f' lw 1.5 dt 2 pt 6 ps 0.6
set style line 3 lc rgb '#c8553d' lw 2.5 pt 5 ps 0.6
set style line 4 lc rgb '#c8553d' lw 1.5 dt 2 pt 4 ps 0.6
set title "from a quiet client's ping to its pong"
set ylabel 'milliseconds (log scale)' offset 0.5,0
set logscale y
set yrange [0.03:*]
set ytics ('0.03' 0.03, '0.1' 0.1, '0.3' 0.3, '1' 1, '3' 3, '10' 10, '30' 30, '100' 100)
plot 'build/bench.tsv' skip 1 using (at($1)):2 with linespoints ls 1 title 'pollers, median', \
     '' skip 1 using (at($1)):3 with linespoints ls 2 title 'pollers, 99 %', \
     '' skip 1 using (at($1)):5 with linespoints ls 3 title 'no pollers, median', \
     '' skip 1 using (at($1)):6 with linespoints ls 4 title 'no pollers, 99 %'
unset logscale y
set title 'resident memory of the server'
set ylabel 'MiB'
set yrange [0:*]
set ytics auto
plot 'build/bench.tsv' skip 1 using (at($1)):4 with linespoints ls 1 title 'pollers', \
     '' skip 1 using (at($1)):7 with linespoints ls 3 title 'no pollers'
unset multiplot
PLOT
    echo 'the picture is build/bench.svg, its figures build/bench.tsv'
}

# --- the table --------------------------------------------------------------------------------

# absolute CASE: a line of figures.
absolute() {
    local who
    for who in wspush bare; do
        printf '  %-52s %-6s %9.0f/s' "${TEXT[$1]}" $who "$(figure "$1" $who rate)"
        [ "$1" = shake ] || printf '  HTTP %6.0f %6.0f us' "$(figure "$1" $who http_p50)" "$(figure "$1" $who http_p99)"
        case $1 in
        fan*) printf '  last %6.0f %6.0f us  CPU %5.2f us, user %.2f' "$(figure "$1" $who last_p50)" \
            "$(figure "$1" $who last_p99)" "$(figure "$1" $who cpu)" "$(figure "$1" $who user)" ;;
        uni* | alone) printf '  end to end %4.0f %4.0f us  CPU %5.2f us, user %.2f' "$(figure "$1" $who latency_p50)" \
            "$(figure "$1" $who latency_p99)" "$(figure "$1" $who cpu)" "$(figure "$1" $who user)" ;;
        esac
        echo
    done
}

table() {
    local name
    echo
    machine
    echo 'ratios to the bare server, medians (of each round):'
    for name in "${CASES[@]}"; do
        ratio_line "${TEXT[$name]}" "$name" wspush rate "$name" bare
    done
    ratio_line 'handshakes with a ticket to those without' ticket wspush rate shake wspush
    ratio_line 'fan-out to 10,000 that can resume to that to others' resumable wspush rate fan10 wspush
    ratio_line 'fan-out to 10,000 with a dead receiver to that without' dead wspush rate fan10 wspush
    ratio_line 'unicast, time beside 9,999 clients to time beside none' alone wspush rate uni1 wspush
    echo
    echo 'figures, medians of the rounds (times: p50 and p99; CPU: of the server for each delivery):'
    for name in "${CASES[@]}"; do
        absolute "$name"
    done
    for name in visits messages; do
        printf '  %-52s wspush %9.0f/s\n' "${TEXT[$name]}" "$(figure $name wspush rate)"
    done
    printf '  %-59s end to end %.0f %.0f us\n' 'ping of one of 19,000 quiet clients' \
        "$(figure quiet wspush latency_p50)" "$(figure quiet wspush latency_p99)"
    echo
    echo 'goals:'
    goals
}

kilo() {
    awk '{ print $1 / 1000 }' <<<"$1" # nan stays nan
}

goals() {
    local name
    goal "${TEXT[fan1]}" "$(ratio fan1 wspush rate fan1 bare)" least 0.92
    goal "${TEXT[fan10]}" "$(ratio fan10 wspush rate fan10 bare)" least 0.92
    goal "${TEXT[fan4]}" "$(ratio fan4 wspush rate fan4 bare)" least 1.8
    goal "${TEXT[fan16]}" "$(ratio fan16 wspush rate fan16 bare)" least 4
    goal 'user CPU of a delivery, 1,000 clients' "$(figure fan1 wspush user)" most 0.4 us
    goal 'user CPU of a delivery, 10,000 clients' "$(figure fan10 wspush user)" most 0.4 us
    goal 'answer to send_to_group, 1,000 clients, p50' "$(kilo "$(figure fan1 wspush http_p50)")" most 0.15 ms
    goal 'answer to send_to_group, 10,000 clients, p50' "$(kilo "$(figure fan10 wspush http_p50)")" most 0.6 ms
    goal "${TEXT[uni8]}" "$(ratio uni8 wspush rate uni8 bare)" least 0.85
    goal 'unicast, 8 HTTP connections, end to end, p99' "$(kilo "$(figure uni8 wspush latency_p99)")" most 0.4 ms
    goal 'unicast, time beside 9,999 clients to beside none' "$(ratio alone wspush rate uni1 wspush)" most 1.15
    goal 'memory of an idle client, 19,000 of them' "$(figure idle wspush each)" most 400 bytes
    goal 'ping of one of 19,000 quiet clients, p99' "$(kilo "$(figure quiet wspush latency_p99)")" most 1 ms
    [ "$MODE" = quick ] || # too short to be pinged
        goal 'CPU for 19,000 idle clients, each pinged in 25 s' "$(figure idle wspush load)" most 5 '% of a core'
    goal "${TEXT[shake]}" "$(ratio shake wspush rate shake bare)" least 0.9
    for name in visits messages; do
        goal "${TEXT[$name]}" "$(figure $name wspush rate)" least 20000 /s
    done
    goal 'handshakes with a ticket to those without' "$(ratio ticket wspush rate shake wspush)" least 0.8
    goal 'fan-out to clients that can resume to that to others' "$(ratio resumable wspush rate fan10 wspush)" least 0.9
    goal 'fan-out with a dead receiver of webhooks to without' "$(ratio dead wspush rate fan10 wspush)" least 0.95
    goal 'start, median' "$(kilo "$(figure start wspush start_p50)")" most 20 ms
    goal 'resident memory at the start' "$(figure start wspush resident | awk '{ print $1 / 1048576 }')" most 6 MiB
    goal 'stripped binary, with the console' "$(kilo "$SIZE")" most 150 kB
}

[ "$MODE" != smoke ] || smoke
ulimit -n "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt 19500 ]; then
    bad 'preparing' "19,500 descriptors are needed, and $(ulimit -n) allowed: see ulimit -n"
    conclude
fi
serve "$BINARY"
TICKET=$(post /api/ticket '{"userId":"u1","groups":["news"],"ttl":3600}' | jq -r .data.ticket)
halt
for ((i = 1; i <= ROUNDS; i++)); do
    if spent "$ROUNDS_END"; then
        echo "the time is up after $((i - 1)) of $ROUNDS rounds"
        break
    fi
    round "$i"
done
once
if [ "$MODE" = full ]; then
    picture_data
    picture
fi
table
conclude
