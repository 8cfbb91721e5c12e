#!/usr/bin/env bash
# packaging.sh [PART...] - contrib/ and `make install`, `uninstall` and `dist`: each file is given to the program
# that it is for, and that runs beside a real server. What only Docker could show is not: the
# Dockerfile is linted, and what its build stage runs is run here.
# build: asan/wspush release/wspush
# shellcheck source=tests/support/lib.sh
. "$(dirname "$0")/../support/lib.sh"

ROOT=$PWD
UNPACKED=$DIR/unpacked
case $WSPUSH in /*) ;; *) WSPUSH=$ROOT/$WSPUSH ;; esac
unset MAKEFLAGS MAKELEVEL MFLAGS CLUSTER # make is called as a person would

# quiet NAME COMMAND...: it must succeed and print nothing.
quiet() {
    local name=$1 said
    shift
    said=$("$@" 2>&1)
    expect "$name" '0 ' "$? $said"
}

# same NAME WHAT WHAT-ELSE: two lists must be the same.
same() {
    quiet "$1" diff <(echo "$2") <(echo "$3")
}

# value KEY: the default of a key in config.ini, in bytes or seconds.
value() {
    sed -n "s/^$1 = //p" config.ini | awk '$2 == "KiB" { $1 *= 1024 } $2 == "MiB" { $1 *= 1048576 } { print $1 }'
}

# --- manual pages -----------------------------------------------------------------------------

# manual: checks both pages as they are installed. mandoc looks for what they refer to in its folder.
manual() {
    need mandoc man
    local page
    for page in "$PREFIX"/share/man/man?/*; do
        quiet "${page##*/}: mandoc -Tlint" sh -c "cd '$DIR/man' && mandoc -Tlint -Wstyle ${page##*/}"
        man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >"$DIR/formatted" | tail -n 5 >"$DIR/warnings"
        expect "${page##*/}: man -l" '' "$(cat "$DIR/warnings")"
        expect_match "${page##*/}: man -l prints it" '*NAME*' "$(tr -d '\n' <"$DIR/formatted")"
    done
}

pages() {
    same 'wspush.ini.5 has the keys of config.ini, with their defaults' \
        "$(sed -n '/^\[/s/^\[\(.*\)\]/\1/p; s/^[a-z_]* =/KEY &/p' config.ini |
            awk '$1 != "KEY" { section = $0; next } { sub(/^KEY /, ""); print "[" section "] " $0 }' | sed 's/ $//')" \
        "$(sed -n 's/\\&$//; s/^\.Ss \[\(.*\)\].*/\1/p; s/^\.It Ic /KEY /p' contrib/wspush.ini.5 |
            awk '$1 != "KEY" { section = $0; next } { sub(/^KEY /, ""); print "[" section "] " $0 }')"
    same 'wspush.1 has the options of wspush -h' \
        "$("$WSPUSH" -h | sed -n 's/^  \(-[a-z]\( [A-Z]*\)\{0,1\}\|[A-Z]*\)  .*/\1/p' | sed 's/ *$//')" \
        "$(sed -n 's/^\.It Fl \(.*\)/-\1/p; s/^\.It Ar //p' contrib/wspush.1 | sed 's/ Ar / /')"
    expect 'wspush.1: SYNOPSIS' "$("$WSPUSH" -h | sed -n 's/^usage: //p')" \
        "$(mandoc -Tascii contrib/wspush.1 | col -b | sed -n '/^SYNOPSIS/{n;s/^ *//p;}')"
}

# key_names: of the keys on standard input, one "SECTION KEY" a line.
key_names() {
    awk '/^\[/ { gsub(/[][]/, ""); section = $0 } /^[a-z_]+ =/ { print section, $1 }' | sort
}

# marked FILE: the keys that the manual says are read again on SIGHUP.
marked() {
    sed -n 's/^\.Ss \(\[.*\]\).*/\1/p; s/^\.It Ic //p; s/^Read again on SIGHUP.*/MARK/p' "$1" |
        awk '/^\[/ { gsub(/[][]/, ""); section = $0 } /^MARK/ { print section, key } { key = $1 }' | sort
}

# logged_keys MESSAGE: the keys of which the log says that.
logged_keys() {
    sed -n 's/.* '"$1"' section="\([a-z]*\)" key="\([a-z_]*\)".*/\1 \2/p' "$DIR/log" | sort
}

# reloading: every key gets another value at once, but for `cluster`, which this binary would
# refuse, and `port`, which is on its command line.
reloading() {
    certificate one
    certificate two
    free_port
    sed "s/^host = 0.*/host = 127.0.0.1/; s,^data_dir = .*,data_dir = $DIR/data,; s/^listen = .*/listen = 127.0.0.1:$FREE/
        s/^drain = .*/drain = 0.1/; s,^file =,& $DIR/log,; s,^cert =,& $DIR/one.pem,; s,^key =,& $DIR/one.key," \
        config.ini >"$DIR/config.ini"
    SCHEME=https
    export CURL_CA_BUNDLE=$DIR/one.pem SSL_CERT_FILE=$DIR/one.pem
    start
    awk '/^cert =|^key =/ { sub("/one\\.", "/two.") } /^crypto_key(_accepted)? =/ { $3 = "sixteen byte key" }
        /^(user|username|password|ca|hosts|sentinels|sentinel_[a-z]*) =/ { $3 = "x" } /^tls =/ { $3 = "true" }
        /^queue_type =/ { $3 = "quorum" } /^(allowed_origins|allow) =/ { $3 = "https://x" }
        /^(advertise|trusted_proxies|rpc_listen) =/ { $3 = "10.0.0.1" } /^max_(groups|members) =/ { $3 = 7 } /^register =/ { $3 = "closed" }
        /^connect =/ { $3 = "ticket" } /^scope =/ { $3 = "off" } /^level =/ { $3 = "debug" } /^format =/ { $3 = "json" } /^(enabled|client) =/ { $3 = "false" }
        /^(host|data_dir|file|prefix|vhost|exchange) =/ || $0 == "user = guest" || $0 == "password = guest" { $0 = $0 "x" }
        /^listen =/ { sub(/:.*/, ":1") } /^(max_connections|max_per_ip|api_rate) =/ { $3 = 100 }
        /^rpc_timeout =/ { $3 = 1000 } /^[a-z_]* = [0-9]+( [KM]iB)?$/ && $3 < 100000 && $3 != 100 && $3 != 1000 { $3 = $3 + 1 }
        /^(token_ttl|drain) =/ { $3 = 1 } { print }' "$DIR/config.ini" >"$DIR/changed.ini"
    cp "$DIR/changed.ini" "$DIR/config.ini"
    kill -HUP "$SERVER"
    wait_for grep -q 'SIGHUP: .*read again\|SIGHUP: nothing' "$DIR/log"
    same 'SIGHUP takes up the keys that wspush.ini.5 marks' "$(marked contrib/wspush.ini.5)" \
        "$(logged_keys 'SIGHUP: changed')"
    same 'SIGHUP says of all others that they need a restart' \
        "$(comm -23 <(key_names <config.ini) <(marked contrib/wspush.ini.5) | grep -vxE 'common (cluster|port)')" \
        "$(logged_keys 'SIGHUP: this change needs a restart')"
    halt
    SCHEME=http
    unset CURL_CA_BUNDLE SSL_CERT_FILE
    rm "$DIR/config.ini" "$DIR/log"
}

# --- make install -----------------------------------------------------------------------------

PREFIX=$DIR/prefix
# Where everything is below $DIR without DESTDIR, it can be used as it is.
HERE=("PREFIX=$PREFIX" "SYSCONFDIR=$DIR/etc" "LOCALSTATEDIR=$DIR/var")

# files FOLDER: what is in it, with modes.
files() {
    (cd "$1" && find . -type f -exec ls -l {} +) | awk '{ print substr($1, 1, 10), $NF }' | sort -k 2
}

install_all() {
    local root=$DIR/root
    make -s wspush >"$DIR/made" 2>&1 || broken 'make' "$DIR/made"
    touch "$DIR/before"
    quiet 'make install' make -s install "DESTDIR=$root"
    expect 'nothing was built for that' '' \
        "$(find wspush build/release -newer "$DIR/before" -type f 2>/dev/null)"
    same 'what make install puts in place' "$(
        sort -k 2 <<END
-rw-r----- ./etc/wspush/wspush.ini
-rw-r--r-- ./etc/logrotate.d/wspush
-rw-r--r-- ./usr/local/lib/systemd/system/wspush.service
-rw-r--r-- ./usr/local/lib/sysusers.d/wspush.conf
$(for file in *.md docs/*.md docs/openapi.yaml docs/img/* examples/*.* LICENSE config.ini wspush.js \
            contrib/{nginx.conf,Caddyfile,haproxy.cfg,compose.yaml,kubernetes.yaml,prometheus-rules.yml,grafana-dashboard.json,Dockerfile,Dockerfile.dockerignore,wspush.service,wspush.logrotate}; do
            echo "-rw-r--r-- ./usr/local/share/doc/wspush/$file"
        done)
-rw-r--r-- ./usr/local/share/man/man1/wspush.1
-rw-r--r-- ./usr/local/share/man/man5/wspush.ini.5
-rwxr-xr-x ./usr/local/bin/wspush
END
    )" "$(files "$root")"
    same 'the configuration differs from config.ini in its paths alone' \
        'data_dir = /var/lib/wspush file = /var/log/wspush/wspush.log' \
        "$(diff config.ini "$root/etc/wspush/wspush.ini" | sed -n 's/^> //p' | paste -sd ' ')"

    # in another place, with another umask; what would change this machine only notes that it was called
    mkdir "$DIR/stubs"
    for file in getent systemd-sysusers chgrp systemctl install id; do
        printf '#!/bin/sh\n%s\n' "echo ${file} \"\$@\" >>'$DIR/called'; [ $file != getent ]" >"$DIR/stubs/$file"
    done
    printf '#!/bin/sh\n[ "$1" != -d ] || { echo install "$@" >>%s; exit; }\nexec /usr/bin/install "$@"\n' "'$DIR/called'" >"$DIR/stubs/install"
    printf '#!/bin/sh\necho "${WHO:-0}"\n' >"$DIR/stubs/id"
    chmod 755 "$DIR"/stubs/*
    (umask 077 && PATH=$DIR/stubs:$PATH make -s install "${HERE[@]}") >"$DIR/said" 2>&1
    expect_match 'make install without DESTDIR leaves one step' "0 *: systemctl enable --now wspush" "$? $(cat "$DIR/said")"
    same 'it makes the user, who may read the configuration, and its folders' "getent passwd wspush
systemd-sysusers $PREFIX/lib/sysusers.d/wspush.conf
chgrp wspush $DIR/etc/wspush/wspush.ini
install -d -o wspush -g wspush -m 700 $DIR/var/lib/wspush
install -d -o wspush -g wspush -m 750 $DIR/var/log/wspush" "$(grep -v '^systemctl daemon-reload$' "$DIR/called")"
    expect 'systemd is told where it runs' "$(find /run/systemd/system -maxdepth 0 2>/dev/null | wc -l)" \
        "$(grep -c '^systemctl daemon-reload$' "$DIR/called")"
    rm "$DIR/called"
    expect_match 'who is not root is told what is missing' '0 *not root: *' \
        "$(WHO=1000 PATH=$DIR/stubs:$PATH make -s install "${HERE[@]}" >"$DIR/said" 2>&1; echo "$? $(cat "$DIR/said")")"
    expect 'and nothing is tried' no "$([ -e "$DIR/called" ] && echo yes || echo no)"
    expect 'folders can be entered by all' 'drwxr-xr-x' \
        "$(find "$PREFIX" "$DIR/etc" -type d -exec ls -ld {} + | cut -c 1-10 | sort -u)"
    expect 'no file has the usual paths' '' \
        "$(grep -r . "$PREFIX/lib" "$PREFIX/share/man" "$DIR/etc" | sed "s,$DIR/[^ ]*,,g" | grep -E '/usr/local|/etc/|/var/')"
    mkdir "$DIR/man" && cp "$PREFIX"/share/man/man?/* "$DIR/man/"
    manual
    echo 'port = 1' >"$DIR/etc/wspush/wspush.ini"
    echo '# mine' >"$DIR/etc/logrotate.d/wspush"
    expect_match 'settings are kept' "*kept*$DIR/etc/logrotate.d/wspush*kept*$DIR/etc/wspush/wspush.ini*" \
        "$(PATH=$DIR/stubs:$PATH make -s install "${HERE[@]}" 2>&1)"
    expect 'and are as they were' 'port = 1 # mine' \
        "$(cat "$DIR/etc/wspush/wspush.ini" "$DIR/etc/logrotate.d/wspush" | paste -sd ' ')"
    rm "$DIR/etc/wspush/wspush.ini" "$DIR/etc/logrotate.d/wspush"
    PATH=$DIR/stubs:$PATH make -s install "${HERE[@]}" >"$DIR/said" 2>&1
    expect 'settings that are gone are put there again' 'logrotate.d/wspush wspush/wspush.ini' \
        "$(cd "$DIR/etc" && find . -type f | cut -c 3- | sort | paste -sd ' ')"
}

# run_installed: the installed server with the installed configuration; only where it listens is ours.
run_installed() {
    local kept=$WSPUSH
    mkdir -p "$DIR/var/lib" "$DIR/var/log/wspush" # by systemd
    quiet 'the installed server takes the installed configuration' \
        sh -c "'$PREFIX/bin/wspush' -t -c '$DIR/etc/wspush/wspush.ini' | grep -v 'is good$' || :"
    free_port
    sed "s/^host = 0.0.0.0/host = 127.0.0.1/; s/^listen = .*/listen = 127.0.0.1:$FREE/; s/^drain = .*/drain = 0.1/" \
        "$DIR/etc/wspush/wspush.ini" >"$DIR/config.ini"
    WSPUSH=$PREFIX/bin/wspush
    start
    sign_up shop
    expect_match 'it works' '*.*.*' "$TOKEN"
    client a shop
    expect 'and pushes' '200 {"code":0,"msg":"success","data":[]} {"code":7,"msg":"m","data":0}' \
        "$(call send_to_system "{'code':7,'msg':'m','data':0}") $(frames a 1)"
    halt
    WSPUSH=$kept
    expect 'its data and its log are where the configuration says' yes \
        "$([ -s "$DIR/var/lib/wspush/accounts" ] && [ -s "$DIR/var/log/wspush/wspush.log" ] && echo yes)"
    expect 'its passwords are hashed as often as they must be; those of builds for tests are not' 600000 \
        "$(awk '$1 == "pbkdf2-sha256" { print $2 }' "$DIR/var/lib/wspush/accounts")"
}

remove_all() {
    quiet 'make uninstall' sh -c "make -s uninstall 'DESTDIR=$DIR/root' | grep -v '^left where they are: /etc/'; :"
    same 'the settings stay' "./etc/logrotate.d/wspush
./etc/wspush/wspush.ini" "$(cd "$DIR/root" && find . -type f | sort)"
    expect 'and no folder of its own' '' "$(find "$DIR/root/usr" -name '*wspush*')"
}

# --- make dist, and the build stage of the Dockerfile -------------------------------------------

distribution() {
    need git busybox
    local clone=$DIR/clone image=$DIR/image name
    if ! [ -e .git ]; then
        echo 'skip make dist: this folder is no clone'
        expect_match 'make dist says so' '*no clone*' "$(make -s dist 2>&1)"
        return
    fi
    git clone -q . "$clone" 2>"$DIR/said" || broken 'git clone' "$DIR/said"
    # the present makefile, so that a change to it is tested before it is committed
    cmp -s Makefile "$clone/Makefile" || { cp Makefile "$clone/" && git -C "$clone" -c user.name=x -c user.email=x commit -qam x; }
    name=wspush-$(sed -n 's/^#define VERSION "\(.*\)"$/\1/p' wspush.c)
    expect 'make dist' "$name.tar.gz" "$(make -s -C "$clone" --no-print-directory dist 2>&1)"
    same 'it has the files of git' "$(git -C "$clone" ls-files | LC_ALL=C sort)" \
        "$(tar tzf "$clone/$name.tar.gz" | sed "s,^$name/,,; /\/$/d; /^$/d" | LC_ALL=C sort)"
    mv "$clone/$name.tar.gz" "$DIR/first.tar.gz"
    git -C "$clone" config tar.umask 077
    echo x >"$clone/a file"
    echo x >>"$clone/README.md"
    expect_match 'what is not committed is left out' "what is not committed*$name.tar.gz" \
        "$(umask 077 && TZ=Asia/Tokyo make -s -C "$clone" --no-print-directory dist 2>&1)"
    quiet 'the same commit makes the same archive' cmp "$DIR/first.tar.gz" "$clone/$name.tar.gz"
    mkdir "$UNPACKED"
    tar xzf "$DIR/first.tar.gz" -C "$UNPACKED" --strip-components 1
    expect_match 'make dist without git' '*no clone*' "$(make -s -C "$UNPACKED" --no-print-directory dist 2>&1)"

    # What the Dockerfile runs behind `COPY . .`, with another folder for /image, and less optimized.
    mkdir -p "$UNPACKED/build/release" && echo 'of another machine' >"$UNPACKED/build/release/buf.o"
    awk '/^COPY \. \./ { found = 1; next } found && /^FROM/ { exit } found' contrib/Dockerfile |
        sed "s/^RUN //; s,/image,$image,g; s/-O2/-O0/; s/-j2/-s -j2/" >"$DIR/stage.sh"
    expect_match 'the build stage has commands' '*make*install*' "$(tr '\n' ' ' <"$DIR/stage.sh")"
    mkdir "$DIR/bin" # Alpine's tools are those of busybox; Debian's has all of them but install
    for name in cmp cp mkdir mv od printf rm sed; do ln -s "$(command -v busybox)" "$DIR/bin/$name"; done
    (cd "$UNPACKED" && CLUSTER='' PATH=$DIR/bin:$PATH nice sh -eu "$DIR/stage.sh") >"$DIR/made" 2>"$DIR/warned"
    expect 'the archive builds, by the commands of the Dockerfile' '0 ' "$? $(cat "$DIR/warned")"
    same 'what goes into the image' "./etc/wspush/wspush.ini ./usr/bin/wspush" \
        "$(cd "$image" && find . -type f | sort | paste -sd ' ')"
    expect "the image's configuration" "0 $image/etc/wspush/wspush.ini is good" \
        "$(WSPUSH_COMMON_DATA_DIR=$image/data "$image/usr/bin/wspush" -t -c "$image/etc/wspush/wspush.ini" 2>&1 | sed 's/^/0 /')"
    nice make -s -j2 -C "$UNPACKED" CFLAGS=-O0 build/release/test_buf build/release/test_json >"$DIR/made" 2>&1
    for name in test_buf test_json; do
        expect_match "$name of the archive" '[1-9]* passed, 0 failed' \
            "$("$UNPACKED/build/release/$name" 2>&1 | tail -n 1)"
    done

    # as if it had been built with CLUSTER=1
    expect 'make install does not compile what is built' 0 \
        "$(make -n -C "$UNPACKED" install DESTDIR=/nowhere CFLAGS=-O3 | grep -c -e ' -c -o ')"
    mkdir -p "$UNPACKED/build/cluster" && cp "$UNPACKED/wspush" "$UNPACKED/build/cluster/"
    expect_match 'make install keeps to CLUSTER=1' '*cp build/cluster/wspush*' \
        "$(make -n -C "$UNPACKED" install DESTDIR=/nowhere CFLAGS=-O3)"
}

# --- Docker -----------------------------------------------------------------------------------

docker() {
    need busybox
    local check admin
    if [ -x .tools/bin/hadolint ]; then
        quiet 'hadolint' .tools/bin/hadolint contrib/Dockerfile
    else
        echo "skip hadolint: there is none for $(uname -m)"
    fi
    echo 'skip docker build: it needs a daemon, and an image from elsewhere'
    expect 'EXPOSE is the port' "$(value port | head -n 1)" "$(sed -n 's/^EXPOSE //p' contrib/Dockerfile)"
    check=$(sed -n 's/^    CMD \(\[.*wget.*\]\)$/\1/p' contrib/Dockerfile | jq -r 'join(" ")')
    admin=$(value listen)
    expect_match 'the health check asks the admin listener' "*http://$admin/healthz" "$check"
    [ -n "${ADMIN-}" ] || return 0
    # as Alpine has it, which has no wget but that of busybox
    quiet 'the health check of a server that runs' busybox sh -c "busybox ${check/$admin/$ADMIN}"
    expect 'the health check of none' 1 \
        "$(busybox sh -c "busybox ${check/http:*/http://127.0.0.1:9/healthz}" 2>"$DIR/said"; echo $?)"
}

# --- systemd ----------------------------------------------------------------------------------

systemd() {
    need systemd-analyze systemd-sysusers
    local unit=$PREFIX/lib/systemd/system/wspush.service name status
    mkdir -p "$DIR/sysroot" # systemd 262 wants it to be there
    quiet 'systemd-analyze verify' systemd-analyze verify --man=no "$unit"
    systemd-analyze security --offline=true --threshold=15 --no-pager "$unit" >"$DIR/security" 2>&1
    status=$?
    expect "systemd-analyze security: $(tail -n 1 "$DIR/security" | tr -cd 'a-zA-Z0-9:. ')" 0 $status
    expect 'it starts what is installed' "$PREFIX/bin/wspush -c $DIR/etc/wspush/wspush.ini" \
        "$(sed -n 's/^ExecStart=//p' "$unit")"
    expect 'it waits longer than the drain' 1 \
        $(($(sed -n 's/^TimeoutStopSec=//p' "$unit") > $(value drain)))
    for name in User Group; do
        expect_match "systemd-sysusers makes the $name" "*user 'wspush'*|wspush" \
            "$(systemd-sysusers --dry-run --root="$DIR/sysroot" "$PREFIX/lib/sysusers.d/wspush.conf" 2>&1)|$(sed -n "s/^$name=//p" "$unit")"
    done
    # the folders that it makes are those of the configuration
    expect 'StateDirectory and data_dir' "$DIR/var/lib/$(sed -n 's/^StateDirectory=//p' "$unit")" \
        "$(sed -n 's/^data_dir = //p' "$DIR/etc/wspush/wspush.ini")"
    expect 'LogsDirectory and file' "$DIR/var/log/$(sed -n 's/^LogsDirectory=//p' "$unit")/wspush.log" \
        "$(sed -n 's/^file = //p' "$DIR/etc/wspush/wspush.ini")"
}

# --- logrotate --------------------------------------------------------------------------------

rotate() {
    logrotate --force --state "$DIR/rotated" "$DIR/logrotate" 2>&1
}

# ended_connections FILE...: how many lines tell of the end of a connection.
ended_connections() {
    zcat -f "$@" | grep -c 'connection closed'
}

has_ended() {
    [ "$(ended_connections "$LOGS"/*)" -ge "$1" ]
}

logs() {
    need logrotate
    local i before
    LOGS=$DIR/var/log/wspush
    mkdir -p "$LOGS" && rm -f "$LOGS"/*
    configure
    sed -i "s,^file = .*,file = $LOGS/wspush.log," "$DIR/config.ini"
    start
    # the signal is sent to a process here, where there is no systemd
    sed "s/^\( *su\) .*/\1 $(id -un) $(id -gn)/; s/systemctl --quiet is-active wspush.service/true/
        s/systemctl kill --signal=USR1 wspush.service/kill -USR1 $SERVER/" \
        "$DIR/etc/logrotate.d/wspush" >"$DIR/logrotate"
    expect 'the file is changed for this test as it should' 1 "$(grep -c '^ *kill -USR1 [0-9]' "$DIR/logrotate")"
    chmod 644 "$DIR/logrotate"
    wait_for has_ended 1
    before=$(ended_connections "$LOGS"/*)
    (for _ in {1..60}; do answers; done) &
    i=$!
    expect 'logrotate' '' "$(rotate)"
    expect 'logrotate, again' '' "$(rotate)"
    wait $i
    answers
    wait_for has_ended $((before + 61))
    expect 'no line is lost' $((before + 61)) "$(ended_connections "$LOGS"/*)"
    expect 'the files' 'wspush.log wspush.log.1 wspush.log.2.gz' "$(cd "$LOGS" && echo *)"
    expect 'the last line is in the new file' 1 "$(tail -n 1 "$LOGS/wspush.log" | grep -c 'connection closed')"
    expect 'and the server writes there alone' "$LOGS/wspush.log" "$(written)"
    halt
}

# written: the files whose length changes with a connection.
written() {
    local file
    declare -A length
    for file in "$LOGS"/*; do length[$file]=$(wc -c <"$file"); done
    before=$(ended_connections "$LOGS"/*)
    answers
    wait_for has_ended $((before + 1))
    for file in "$LOGS"/*; do
        [ "$(wc -c <"$file")" = "${length[$file]}" ] || echo "$file"
    done
}

# --- nginx ------------------------------------------------------------------------------------

# nginx_with SED-SCRIPT...: starts nginx with contrib/nginx.conf, on a free port.
nginx_with() {
    free_port
    rm -f "$DIR/nginx/error.log"
    start_nginx "$(sed -e "s/listen 80;/listen 127.0.0.1:$FREE;/; s/listen 443 /listen 127.0.0.1:$FREE /" \
        -e "s,/var/log/nginx/access.log,$DIR/nginx/access.log," \
        -e "s/server 127.0.0.1:7800;/server 127.0.0.1:$SERVER_PORT;/" "$@" contrib/nginx.conf)" "$FREE"
    expect 'nginx says nothing' '' "$(cat "$DIR/nginx/out" "$DIR/nginx/error.log")"
    PORT=$NGINX_PORT
}

# visit PATH [CURL-ARGUMENT...]: prints the status, and who has answered.
visit() {
    local path=$1 code
    shift
    code=$(curl -s --max-time 10 -o "$DIR/visited" -w '%{http_code}' "$@" "$SCHEME://127.0.0.1:$PORT$path")
    echo "$code $(grep -q '<center>nginx' "$DIR/visited" && echo nginx || echo wspush)"
}

# upgrade [CURL-ARGUMENT...]: the status of a handshake.
upgrade() {
    curl -s --max-time 0.3 --http1.1 -o /dev/null -w '%{http_code}' -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
        -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "$@" \
        "$SCHEME://127.0.0.1:$PORT/ws?systemId=shop"
}

# walk NAME: a client gets a push through nginx.
walk() {
    client "$1" shop
    expect "nginx, $1: a client gets a push" \
        '200 {"code":0,"msg":"success","data":[]} {"code":7,"msg":"m","data":0}' \
        "$(call send_to_client "{'clientId':'$ID','code':7,'msg':'m','data':0}") $(frames "$1" 1)"
}

# pipelined COUNT PATH: the statuses of so many calls at once, each with how often it came.
pipelined() {
    for ((i = 1; i < $1; i++)); do request "$2" '{}'; done >"$DIR/calls"
    request "$2" '{}' 'Connection: close' >>"$DIR/calls"
    talk <"$DIR/calls" | grep -ao 'HTTP/1.1 [0-9]*' | cut -d ' ' -f 2 | sort | uniq -c | awk '{ print $2 ":" $1 }'
}

proxy() {
    local path stub dead body=$DIR/body.json statuses
    free_port
    ADMIN=127.0.0.1:$FREE
    configure
    sed -i 's/^host/trusted_proxies = 127.0.0.1\nhost/' "$DIR/config.ini"
    start
    SERVER_PORT=$PORT
    sign_up shop
    docker # while a server runs

    expect 'nginx: times and sizes go with those of the server' '1 1 1' "$(
        setting() { sed -n "s/^ *$1 \([0-9]*\)[ms];.*/\1/p" contrib/nginx.conf; }
        echo $(($(setting proxy_read_timeout) > $(value ping) + $(value pong_timeout))) \
            $(($(setting keepalive_timeout) < $(value idle_timeout))) \
            $(($(setting client_max_body_size) * 1048576 == $(value max_body)))
    )"
    nginx_with -e 's/wspush_clients 200/wspush_clients 2/'
    walk plain
    expect 'a body of the length that wspush takes' '400 wspush' \
        "$(head -c 1048576 /dev/zero >"$body"; visit /api/login --data-binary "@$body")"
    expect 'one byte more' '413 nginx' \
        "$(head -c 1048577 /dev/zero >"$body"; visit /api/login --data-binary "@$body")"
    for path in /metrics /healthz /readyz /metrics/ /ws/ /x; do
        expect "$path from outside" '404 nginx' "$(visit $path)"
    done
    expect_match 'the page at /' '* wspush' "$(visit /)"
    # 127.0.0.2 is not among those who may call
    expect 'the API for others' '403 nginx' "$(visit /api/login --interface 127.0.0.2 -d '{}')"
    expect 'the console for others' '403 nginx' "$(visit / --interface 127.0.0.2)"
    expect '/wspush.js for others' '200' "$(visit /wspush.js --interface 127.0.0.2 | cut -d ' ' -f 1)"
    expect '/ws for others' 101 "$(upgrade --interface 127.0.0.2)"
    expect 'and wspush knows who they are' 0 \
        "$(wait_for grep -q 'client lost.* remote="127.0.0.2"' "$DIR/log"; echo $?)"
    expect 'nginx logs /ws without its query, where tickets are' '0 no' \
        "$(wait_for grep -q '"GET /ws HTTP/1.1" 101' "$DIR/nginx/access.log"; echo "$? $(grep -q shop "$DIR/nginx/access.log" && echo yes || echo no)")"
    client second shop
    expect 'clients beyond the limit of an address' 429 "$(upgrade)"
    expect 'those of other addresses' 101 "$(upgrade --interface 127.0.0.2)"
    statuses=$(pipelined 40 login)
    expect_match 'many logins of one address' '*400:*429:*' "$(echo "$statuses" | paste -sd ' ')"
    expect 'many other calls' '400:40' "$(pipelined 40 send_to_system)"
    stop_nginx

    # a cluster, of which one node is down and another not ready
    free_port
    dead=$FREE
    free_port
    stub=$FREE
    nginx_with -e "/^    server 127.0.0.1:[0-9]*;/d; s/^    # server 10.0.0.11:7800;/    server 127.0.0.1:$SERVER_PORT; server 127.0.0.1:$dead;/" \
        -e "s/^    # server 10.0.0.12:7800;/    server 127.0.0.1:$stub;/" \
        -e "\$a server { listen 127.0.0.1:$stub; return 503; }"
    expect 'nginx is told of three nodes' 3 "$(grep -o 'server 127.0.0.1:[0-9]*;' "$DIR/nginx/nginx.conf" | wc -l)"
    expect 'handshakes all come to the node that works' '101 101 101 101 101 101' \
        "$(for _ in {1..6}; do upgrade; echo; done | paste -sd ' ')"
    expect 'though not at once' yes "$(grep -q "$dead" "$DIR/nginx/error.log" && echo yes)"
    stop_nginx

    # TLS
    certificate tls
    nginx_with -e '/^    listen 127.0.0.1/d; s/^    # \(listen 127\|ssl_\|add_header\)/    \1/' \
        -e "s,/etc/nginx/tls/fullchain.pem,$DIR/tls.pem,; s,/etc/nginx/tls/privkey.pem,$DIR/tls.key,"
    SCHEME=https
    export CURL_CA_BUNDLE=$DIR/tls.pem SSL_CERT_FILE=$DIR/tls.pem
    walk tls
    expect 'Strict-Transport-Security' 1 "$(curl -s -D - -o /dev/null "https://127.0.0.1:$PORT/api/login" -d '{}' |
        grep -ci '^strict-transport-security: max-age=')"
    expect '/metrics from outside, with TLS' '404 nginx' "$(visit /metrics)"
    stop_nginx
    SCHEME=http PORT=$SERVER_PORT
    halt
    unset CURL_CA_BUNDLE SSL_CERT_FILE ADMIN
}

# --- scripts ----------------------------------------------------------------------------------

scripts() {
    need shellcheck
    quiet 'shellcheck' shellcheck -S warning tests/e2e/packaging.sh contrib/deps.sh tests/run.sh tests/e2e/walk.sh tests/support/walk_lib.sh tests/fresh/fresh.sh
    quiet 'shellcheck, the scripts of the package' shellcheck -S warning contrib/debian/wspush.postinst contrib/debian/wspush.postrm
}

PARTS=(pages reloading install_all run_installed distribution systemd proxy logs remove_all scripts)
[ $# = 0 ] || PARTS=("$@")
for part in "${PARTS[@]}"; do
    "$part"
done
finish
