#!/usr/bin/env bash
# durability.sh - accounts survive kill -9 at any instant: what was answered with success is on the disk.
# build: asan/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

KILLS=50
TOGETHER=3 # registrations sent at the same time
HITS=10    # kills that must have met a registration not answered yet
SAMPLE=10  # systems that log in at the end
FEW=5      # systems looked at whose registration was not answered

quick_hashes

kill_server() {
    kill -9 "$SERVER"
    wait "$SERVER" 2>/dev/null
    SERVER=''
}

# code NAME SYSTEM PASSWORD: calls /api/NAME and prints the answer's code alone.
code() {
    post "/api/$1" "{\"systemId\":\"$2\",\"password\":\"$3\"}" | jq .code
}

# send_registration SYSTEM: its answer goes to SYSTEM.answer, curl's status to SYSTEM.status.
send_registration() {
    curl -s --max-time 100 -o "$DIR/$1.answer" "http://127.0.0.1:$PORT/api/register" \
        --data-binary "{\"systemId\":\"$1\",\"password\":\"p-$1\"}"
    echo $? >"$DIR/$1.status"
}

# sort_answer SYSTEM: adds it to the list of what became of it.
sort_answer() {
    case "$(cat "$DIR/$1.status") $(cat "$DIR/$1.answer" 2>/dev/null)" in
    '0 {"code":0,'*)
        echo "$1" >>"$DIR/done"
        answered=$((answered + 1))
        ;;
    '7 ') ;; # the server was gone before
    18\ * | 52\ * | 55\ * | 56\ *)
        echo "$1" >>"$DIR/unanswered"
        hit=1
        ;;
    *) echo "$1: $(cat "$DIR/$1".*)" >>"$DIR/strange" ;;
    esac
}

# calculate EXPRESSION: prints its value.
calculate() {
    awk -v round="$round" "BEGIN { srand(round); printf \"%.3f\", $1 }"
}

# The kill comes after a random part of $longest, so that every stage of a registration is met.
# However slow the machine: $longest grows when nothing was answered, and shrinks when everything
# was.
adapt() {
    case $answered in
    0) longest=$(calculate "$longest < 3 ? $longest * 1.2 : $longest") ;;
    "$TOGETHER") longest=$(calculate "$longest * 0.8") ;;
    esac
}

kill_again_and_again() {
    local number hit answered pids longest
    hits=0
    post /api/register '{"systemId":"first","password":"p-first"}' -w '%{time_total}' >/dev/null
    round=0
    longest=$(calculate "2 * $(tr , . <"$DIR/status")") # curl's time replaces the status
    for ((round = 1; round <= KILLS; round++)); do
        [ $round = 1 ] || start
        pids=() hit=0 answered=0
        for ((number = 1; number <= TOGETHER; number++)); do
            send_registration "s$round-$number" &
            pids+=($!)
        done
        sleep "$(calculate "rand() * $longest")"
        kill_server
        wait "${pids[@]}"
        for ((number = 1; number <= TOGETHER; number++)); do
            sort_answer "s$round-$number"
        done
        hits=$((hits + hit))
        adapt
    done
    start
}

# all_are CODE NAME LIST: prints the systems of the list that are not answered with this code.
all_are() {
    local system got
    while read -r system; do
        got=$(code "$2" "$system" "p-$system" </dev/null)
        [ "$got" = "$1" ] || echo "$system:$got"
    done <"$3"
}

# sample COUNT LIST: so many systems, spread over the list.
sample() {
    awk -v count="$1" '{ line[NR] = $0 }
        END {
            for (i = 0; i < count && i < NR; i++)
                print line[1 + int(i * NR / (count < NR ? count : NR))]
        }' "$2"
}

# Systems whose registration was not answered: some that exist all the same, then some others.
sample_unanswered() {
    local system
    while read -r system; do
        ! grep -qs " $system\$" "$DIR/data/accounts" || echo "$system"
    done <"$DIR/unanswered" | head -n $FEW
    sample $FEW "$DIR/unanswered"
}

# whole_or_absent LIST: prints the systems that neither exist nor can be registered, or that do not
# log in then.
whole_or_absent() {
    local system got
    while read -r system; do
        got=$(code register "$system" "p-$system" </dev/null)
        case $got in
        0 | -1004) got=$(code login "$system" "p-$system" </dev/null) ;;
        esac
        [ "$got" = 0 ] || echo "$system:$got"
    done <"$1"
}

# at_least NAME LEAST ACTUAL
at_least() {
    if [ "$3" -ge "$2" ]; then
        ok "$1"
    else
        bad "$1" "$3, not $2"
    fi
}

touch "$DIR/done" "$DIR/unanswered" "$DIR/strange"
configure
start
kill_again_and_again
ok "it starts again after each of $KILLS kills"
expect 'every answer is success' '' "$(head -n 3 "$DIR/strange")"
at_least 'kills met a registration not answered yet' $HITS $hits
at_least 'registrations were answered between the kills' $HITS "$(wc -l <"$DIR/done")"
echo first >>"$DIR/done"
expect 'every system that was answered with success is registered' '' \
    "$(all_are -1004 register "$DIR/done")"
sample $SAMPLE "$DIR/done" >"$DIR/sample"
expect 'and logs in with its password' '' "$(all_are 0 login "$DIR/sample")"
expect 'and not with another' -1005 "$(code login first wrong)"
sample_unanswered | sort -u >"$DIR/sample"
expect 'a system that was not answered exists whole or not at all' '' \
    "$(whole_or_absent "$DIR/sample")"

# A power cut may tear the last line: at any place that is not its end.
halt
tail -n 1 "$DIR/data/accounts" >"$DIR/last"
head -n -1 "$DIR/data/accounts" >"$DIR/whole"
for left in 1 30 100 $(($(wc -c <"$DIR/last") - 1)); do
    { cat "$DIR/whole" && head -c "$left" "$DIR/last"; } >"$DIR/data/accounts"
    start
    expect_match "$left bytes of a last line are moved away, and that is said" '*a crash had torn the last line*' \
        "$(tail -n 3 "$DIR/log")"
    expect 'they are kept beside' "$(head -c "$left" "$DIR/last")" "$(cat "$DIR/data/accounts.torn")"
    expect 'the file is what it was before that line' same "$(cmp "$DIR/whole" "$DIR/data/accounts" && echo same)"
    expect 'a system of before logs in' 0 "$(code login first p-first)"
    expect 'another one is registered' 0 "$(code register after p-after)"
    halt
    expect 'in a line of its own' 'after 1' \
        "$(tail -n 1 "$DIR/data/accounts" | cut -d ' ' -f 5) $(($(wc -l <"$DIR/data/accounts") - $(wc -l <"$DIR/whole")))"
done
finish
