# wspush: see `make help`.

# A BSD make reads this as a directive and stops with the hint; for GNU make it is a target that nobody wants.
.error : this makefile is for GNU make, run gmake

CFLAGS ?= -O2 -g
PKG_CONFIG ?= pkg-config

# Where `make install` puts things, each below DESTDIR.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
LOCALSTATEDIR ?= /var
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/wspush
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d

# The rooms, lowest first; wspush.c alone has main(). The build for clusters (make CLUSTER=1) has those of
# CLUSTER_ROOMS as well, two of which need a library each; without them cluster.h is inline functions.
ROOMS = buf table limit timer log json host origin config crypto os tls http console poller ws conn listener command account hub api metrics session loop
CLUSTER_ROOMS = cluster_wire cluster_order cluster_pending cluster_lookup redis cluster_store cluster_member cluster_cleanup cluster_registry rabbit cluster_stream cluster_bus_state cluster_bus cluster_peer cluster_link cluster_state cluster_receipt cluster_route cluster_presence cluster cluster_listen
ifneq ($(filter install,$(MAKECMDGOALS)),) # installs what was built, if CLUSTER=1 is not said again
CLUSTER ?= $(shell cmp -s wspush build/cluster/wspush && echo 1)
endif
VARIANT = $(if $(CLUSTER),cluster,release)

WARNINGS = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes \
           -Wmissing-prototypes -Wvla -Wformat=2
STANDARD = -std=c11 -D_XOPEN_SOURCE=700 -pthread
COMPILE = $(CC) $(STANDARD) $(WARNINGS) $(OPENSSL_CFLAGS) $(CPPFLAGS) $(CFLAGS) -I. -Itests/support -MMD -MP

OPENSSL_CFLAGS = $(shell $(PKG_CONFIG) --cflags libssl libcrypto 2>/dev/null)
OPENSSL_LIBS = $(shell $(PKG_CONFIG) --libs libssl libcrypto 2>/dev/null || echo -lssl -lcrypto)
CLUSTER_LIBS = $(shell $(PKG_CONFIG) --libs hiredis librabbitmq 2>/dev/null || echo -lhiredis -lrabbitmq)

# Each variant of the build has a folder of its own under build/: release, asan and tsan for a node
# that is alone, cluster, cluster-asan and cluster-tsan for nodes of a cluster, cluster-v2 and cluster-v3 for
# nodes of later versions of their protocol; armhf, s390x, musl, freebsd, netbsd, openbsd and macos are
# tests/support/cross.sh's, which names their compilers.
SANITIZE_cluster-asan = $(SANITIZE_asan)
SANITIZE_cluster-tsan = $(SANITIZE_tsan)
DEFINE_cluster = -DWSPUSH_CLUSTER
DEFINE_cluster-asan = $(DEFINE_cluster)
DEFINE_cluster-tsan = $(DEFINE_cluster)
DEFINE_cluster-v2 = $(DEFINE_cluster) -DWIRE_VERSION=2
DEFINE_cluster-v3 = $(DEFINE_cluster) -DWIRE_VERSION=3
SANITIZE_asan = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SANITIZE_tsan = -O1 -g -fsanitize=thread
SANITIZE_release =
# The same server with every connection in one poll(), for tests/bench/bench.sh's picture.
SANITIZE_unparked = -DPARK_FROM=1000000

# Fuzz targets, tests/fuzz_*.c: with libFuzzer in the variant fuzz, and with a driver that replays their
# corpora in asan. Some calls of the rooms end in the target instead. What nodes write needs no library
# of a cluster, so it is there too.
FUZZ = http ws json config token command stream
SANITIZE_fuzz = $(SANITIZE_asan) -fsanitize=fuzzer-no-link
WRAP_command = -Wl,--wrap=crypto_random
WRAP_stream = -Wl,--wrap=crypto_random,--wrap=account_submit,--wrap=recv,--wrap=send,--wrap=writev,--wrap=shutdown,--wrap=close
build/fuzz/%: override CC = $(FUZZ_CC)
FUZZ_CC ?= clang

# The object of a test program, by its name alone: build/VARIANT/tests/FOLDER/NAME.o.
.SECONDEXPANSION:

# Unit tests; those of rooms that only a cluster has are built there. FAKED_UNITS bring a bus, links and a
# registry of their own (tests/unit/cluster_fake.h), and are linked with FAKED_ROOMS alone.
ALL_UNITS = $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
CLUSTER_UNITS = $(filter $(CLUSTER_ROOMS:%=test_%),$(ALL_UNITS))
UNITS = $(filter-out $(CLUSTER_UNITS),$(ALL_UNITS))
FAKED_UNITS = test_cluster_state test_cluster_receipt test_cluster_route test_cluster_presence test_cluster
FAKED_ROOMS = cluster_wire cluster_order cluster_pending cluster_stream cluster_state cluster_receipt cluster_route cluster_presence cluster

all: wspush

help:
	@echo 'make deps        install what the build needs (compiler, pkg-config, OpenSSL headers)'
	@echo 'make             build ./wspush, for a node that is alone'
	@echo 'make CLUSTER=1   build ./wspush with cluster support (make deps CLUSTER=1 goes before it)'
	@echo 'make run         build and serve with config.ini'
	@echo 'make test-deps   install what the tests need as well (curl, jq, websocat, Redis, RabbitMQ, nginx, Chromium)'
	@echo 'make test        run the whole test suite'
	@echo 'make test-cross  build the unit tests for 32 bits, for big-endian and for musl, and run them; compile for BSD and macOS (make cross-deps)'
	@echo 'make fuzz        fuzz each target for SECONDS_EACH=60 (make fuzz-deps goes before it)'
	@echo 'make echo        build ./build/echo, a WebSocket echo server of the same parts'
	@echo 'make layers      check that no part includes one above it'
	@echo 'make chaos       run a cluster under random faults for SECONDS=60, with SEED=n for those of an earlier run'
	@echo 'make scale       measure 2, 4 and 8 nodes of a cluster on this machine'
	@echo 'make bench       measure a node beside the limit of this machine, in six minutes (make bench-deps draws)'
	@echo 'make bench-quick the same in half a minute, less exactly'
	@echo 'make bench-cluster  measure what two nodes, Redis and RabbitMQ cost (make test-deps goes before it)'
	@echo 'make install     install under PREFIX (/usr/local) and SYSCONFDIR (/etc), below DESTDIR; make uninstall'
	@echo 'make dist        make wspush-VERSION.tar.gz of the last commit'
	@echo 'make clean       remove what was built'

wspush: build/$(VARIANT)/wspush FORCE
	@cmp -s $< $@ || cp $< $@

run: wspush
	@./wspush -c config.ini

echo: build/echo

build/echo: build/release/echo
	@cp $< $@

rooms = $(if $(DEFINE_$(1)),$(ROOMS) $(CLUSTER_ROOMS),$(ROOMS))
objects = $(patsubst %,build/$(1)/%.o,$(call rooms,$(1)))
libs = $(if $(DEFINE_$(1)),$(CLUSTER_LIBS)) $(OPENSSL_LIBS)

define VARIANT
build/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(COMPILE) $$(DEFINE_$(1)) $$(SANITIZE_$(1)) -c -o $$@ $$<

build/$(1)/console.o: build/console.inc

build/$(1)/wspush: $$(call objects,$(1)) build/$(1)/wspush.o
	$$(CC) $$(CFLAGS) $$(SANITIZE_$(1)) -pthread $$(LDFLAGS) -o $$@ $$^ $$(call libs,$(1))

build/$(1)/echo build/$(1)/notify_socket build/$(1)/load_client build/$(1)/bench build/$(1)/rfc6455 build/$(1)/rfc9112 $(UNITS:%=build/$(1)/%) $(patsubst %,build/$(1)/%,$(filter-out $(FAKED_UNITS),$(CLUSTER_UNITS))): build/$(1)/%: build/$(1)/$$$$(basename $$$$(wildcard tests/*/$$$$*.c)).o $$(call objects,$(1))
	$$(CC) $$(CFLAGS) $$(SANITIZE_$(1)) -pthread $$(LDFLAGS) -o $$@ $$^ $$(call libs,$(1))
endef
$(foreach variant,release asan tsan unparked cluster cluster-asan cluster-tsan cluster-v2 cluster-v3 armhf s390x musl freebsd netbsd openbsd macos fuzz,$(eval $(call VARIANT,$(variant))))

$(FAKED_UNITS:%=build/cluster-asan/%): build/cluster-asan/%: build/cluster-asan/tests/unit/%.o $(patsubst %,build/cluster-asan/%.o,$(ROOMS) $(FAKED_ROOMS))
	$(CC) $(CFLAGS) $(SANITIZE_asan) -pthread $(LDFLAGS) -o $@ $^ $(OPENSSL_LIBS)

# The console's page, as the numbers of an array.
build/console.inc: console.html
	@mkdir -p $(@D)
	od -An -v -tu1 $< | sed 's/[0-9][0-9]*/&,/g' >$@.new
	mv $@.new $@

# The one that is for Linux alone.
build/%/tests/bench/bench.o: override CPPFLAGS += -D_GNU_SOURCE

# Those that make allocations fail.
build/%/test_scarce: LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=crypto_hash_password
build/%/test_cluster: LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc

# Those that look up names of their own, and the one whose Redis loses replies.
build/%/test_cluster_bus build/%/test_cluster_link build/%/test_redis: LDFLAGS += -Wl,--wrap=getaddrinfo
build/%/test_cluster_registry: LDFLAGS += -Wl,--wrap=redis_next,--wrap=redis_append,--wrap=redis_is_connected

$(FUZZ:%=build/asan/replay_%): build/asan/replay_%: build/asan/tests/fuzz/fuzz_%.o build/asan/tests/fuzz/replay.o build/asan/cluster_wire.o $(call objects,asan)
	$(CC) $(CFLAGS) $(SANITIZE_asan) -pthread $(WRAP_$*) $(LDFLAGS) -o $@ $^ $(call libs,asan)

$(FUZZ:%=build/fuzz/fuzz_%): build/fuzz/fuzz_%: build/fuzz/tests/fuzz/fuzz_%.o build/fuzz/cluster_wire.o $(call objects,fuzz)
	$(CC) $(CFLAGS) $(SANITIZE_asan) -fsanitize=fuzzer -pthread $(WRAP_$*) $(LDFLAGS) -o $@ $^ $(call libs,fuzz)

# Everything the tests run, built beforehand and in parallel.
test-build: build/asan/wspush build/asan/echo build/tsan/wspush build/release/notify_socket build/release/load_client build/release/wspush \
            build/asan/rfc6455 build/asan/rfc9112 build/asan/bench \
            $(UNITS:%=build/asan/%) build/tsan/test_poller build/tsan/test_account build/tsan/test_os \
            build/cluster-asan/wspush build/cluster-tsan/wspush build/cluster-v2/wspush build/cluster-v3/wspush \
            $(CLUSTER_UNITS:%=build/cluster-asan/%) $(FUZZ:%=build/asan/replay_%)

test:
	@$(MAKE) --no-print-directory -s -j2 test-build
	@tests/run.sh $(ONLY)

SECONDS_EACH ?= 60
fuzz:
	@MAKE='$(MAKE)' FUZZ_CC='$(FUZZ_CC)' tests/fuzz/fuzz.sh $(SECONDS_EACH) $(ONLY)

fuzz-build: $(FUZZ:%=build/fuzz/fuzz_%)

layers:
	@tests/e2e/layers.sh

deps:
	@contrib/deps.sh build

test-deps:
	@contrib/deps.sh test

cross-deps:
	@contrib/deps.sh cross

test-cross:
	@tests/support/cross.sh

fuzz-deps:
	@contrib/deps.sh fuzz

bench-deps:
	@contrib/deps.sh bench

bench: build/release/wspush build/release/bench build/unparked/wspush
	@tests/bench/bench.sh

bench-quick: build/release/wspush build/release/bench
	@tests/bench/bench.sh quick

bench-cluster: build/release/wspush build/release/bench build/cluster/wspush
	@tests/bench/bench_cluster.sh

# With CLUSTER_WSPUSH=FILE another build; SECONDS and SEED count from the command line alone, for shells have their own.
CLUSTER_WSPUSH ?= build/cluster-asan/wspush
chaos: $(CLUSTER_WSPUSH)
	@python3 -B tests/cluster/chaos.py --binary $(CLUSTER_WSPUSH) $(foreach name,SECONDS SEED NODES,$(if $(filter command%,$(origin $(name))),--$(shell echo $(name) | tr A-Z a-z) $($(name))))

scale: build/cluster/wspush
	@tests/bench/scale.sh

# Below DOCDIR they have the folders that they have here, so that links between them hold.
DOCUMENTS = $(sort $(wildcard *.md docs/*.md docs/*.yaml docs/img/* examples/*.*)) LICENSE config.ini \
            $(addprefix contrib/,nginx.conf Dockerfile Dockerfile.dockerignore wspush.service wspush.logrotate)
SETTINGS = $(SYSCONFDIR)/wspush/wspush.ini $(SYSCONFDIR)/logrotate.d/wspush
INSTALLED = $(PREFIX)/bin/wspush $(MANDIR)/man1/wspush.1 $(MANDIR)/man5/wspush.ini.5 \
            $(UNITDIR)/wspush.service $(SYSUSERSDIR)/wspush.conf \
            $(addprefix $(DOCDIR)/,$(DOCUMENTS))

# $(call put,FILE,PLACE): installs a file of contrib/ with the paths that were chosen.
put = rm -f $(DESTDIR)$(2) && $(PLACES) contrib/$(1) >$(DESTDIR)$(2) && chmod 644 $(DESTDIR)$(2)
PLACES = sed -e 's|/usr/local|$(PREFIX)|g' -e 's|/etc/|$(SYSCONFDIR)/|g' -e 's|/var/|$(LOCALSTATEDIR)/|g'
# $(call keep,FILE): succeeds, and says so, if it is there: settings belong to who runs the server.
keep = { [ -e $(DESTDIR)$(1) ] || [ -h $(DESTDIR)$(1) ]; } && echo 'kept as it is: $(DESTDIR)$(1)'

install: wspush
	umask 022 && mkdir -p $(addprefix $(DESTDIR),$(sort $(dir $(INSTALLED) $(SETTINGS))))
	install -m 755 wspush $(DESTDIR)$(PREFIX)/bin/wspush
	for file in $(DOCUMENTS); do install -m 644 $$file $(DESTDIR)$(DOCDIR)/$$file || exit 1; done
	$(call put,wspush.1,$(MANDIR)/man1/wspush.1)
	$(call put,wspush.ini.5,$(MANDIR)/man5/wspush.ini.5)
	$(call put,wspush.service,$(UNITDIR)/wspush.service)
	$(call put,wspush.sysusers,$(SYSUSERSDIR)/wspush.conf)
	@$(call keep,$(SYSCONFDIR)/logrotate.d/wspush) || { $(call put,wspush.logrotate,$(SYSCONFDIR)/logrotate.d/wspush); }
	@$(call keep,$(SYSCONFDIR)/wspush/wspush.ini) || { umask 027 && \
	    sed -e 's|^data_dir = .*|data_dir = $(LOCALSTATEDIR)/lib/wspush|' \
	        -e 's|^file =.*|file = $(LOCALSTATEDIR)/log/wspush/wspush.log|' config.ini \
	        >$(DESTDIR)$(SYSCONFDIR)/wspush/wspush.ini; }
	@[ -n '$(DESTDIR)' ] || printf '%s\n' 'With systemd, as root:' '  systemd-sysusers' \
	    '  chgrp wspush $(SYSCONFDIR)/wspush/wspush.ini' '  systemctl daemon-reload' \
	    '  systemctl enable --now wspush'

uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	-@rmdir $(addprefix $(DESTDIR)$(DOCDIR),/docs/img /docs /examples /contrib) $(DESTDIR)$(DOCDIR) 2>/dev/null || :
	@echo 'left where they are: $(SETTINGS), and the data and logs in $(LOCALSTATEDIR)'

# The files of the last commit; the same commit always makes the same archive.
dist:
	@[ -e .git ] || { echo 'make dist takes the files from git: this folder is no clone'; exit 1; }
	@[ -z "$$(git status --porcelain)" ] || echo 'what is not committed is left out'
	@version=$$(git show HEAD:wspush.c | sed -n 's/^.define VERSION "\(.*\)"$$/\1/p') && \
	    name=wspush-$${version:?wspush.c has no VERSION} && \
	    git -c tar.umask=022 archive --prefix=$$name/ -o $$name.tar HEAD && \
	    gzip -9nf $$name.tar && echo $$name.tar.gz

clean:
	rm -rf build wspush

FORCE:

.PHONY: FORCE all help run echo test test-build fuzz fuzz-build layers deps test-deps cross-deps test-cross fuzz-deps bench-deps bench bench-quick bench-cluster chaos scale install uninstall dist clean
.SECONDARY:

-include $(wildcard build/*/*.d build/*/tests/*/*.d)
