# wspush: see `make help`.

# A BSD make reads this as a directive and stops with the hint; for GNU make it is a target that nothing needs.
.error : this makefile is for GNU make, run gmake

# Without tables that only C++ unwinds by: 24 kB; debuggers read what -g writes.
CFLAGS ?= -O2 -g -fno-asynchronous-unwind-tables
PKG_CONFIG ?= pkg-config

# The modules, lowest first; wspush.c has main(). A build for clusters (CLUSTER=1) adds CLUSTER_MODULES.
MODULES = buf table limit timer log json host crypto ticket os tls http dial webhook_client webhook config inbox console poller ws conn listener account_store account_queue account_table account resume channel once command event hub hub_resume roster api_request api_account api metrics session_http session sessions loop server
CLUSTER_MODULES = cluster_crypto cluster_wire cluster_order cluster_pending cluster_lookup cluster_tls redis cluster_store cluster_member cluster_cleanup cluster_registry rabbit cluster_stream cluster_bus_state cluster_bus cluster_peer cluster_link cluster_state cluster_receipt cluster_census cluster_farewell cluster_adopt cluster_route cluster_change cluster_presence cluster_batch cluster cluster_listen

# Each variant of the build has its flags here, and its files in build/VARIANT. tests/*.mk have more variants.
VARIANTS = release asan tsan cluster cluster-asan cluster-tsan
# What a message does not pass through is built for size.
SMALL = limit log host config crypto ticket os dial webhook_client webhook console listener account_store account_queue account_table account hub_resume roster api_request api_account metrics server wspush
FLAGS_release = $(if $(filter $(basename $<),$(SMALL)),-Os)
ASAN = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer $(QUICK)
TSAN = -O1 -g -fsanitize=thread $(QUICK)
QUICK = -DCRYPTO_ITERATIONS=20000 # with a sanitizer, hashing takes up to ten times as long
FLAGS_asan = $(ASAN)
FLAGS_tsan = $(TSAN)
FLAGS_cluster = $(FLAGS_release) -DWSPUSH_CLUSTER $(if $(REDIS_TLS),-DWSPUSH_REDIS_TLS)
FLAGS_cluster-asan = $(FLAGS_cluster) $(ASAN)
FLAGS_cluster-tsan = $(FLAGS_cluster) $(TSAN)

WARNINGS = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
STANDARD = -std=c11 -D_XOPEN_SOURCE=700 -pthread
INCLUDE = -I. $(if $(filter tests/%,$<),-Itests/support)
COMPILE = $(CC) $(STANDARD) $(WARNINGS) $(OPENSSL_CFLAGS) $(CPPFLAGS) $(CFLAGS) $(INCLUDE) -MMD -MP
OPENSSL_CFLAGS := $(shell $(PKG_CONFIG) --cflags libssl libcrypto 2>/dev/null)
OPENSSL_LIBS := $(shell $(PKG_CONFIG) --libs libssl libcrypto 2>/dev/null || echo -lssl -lcrypto)
# TLS to Redis needs hiredis_ssl 1.0 or later; without it the build is the same, and says so when it is asked for.
REDIS_TLS := $(shell $(PKG_CONFIG) --exists 'hiredis_ssl >= 1.0' 2>/dev/null && echo hiredis_ssl)
CLUSTER_LIBS := $(shell $(PKG_CONFIG) --libs $(REDIS_TLS) hiredis librabbitmq 2>/dev/null || echo -lhiredis -lrabbitmq)

#: make deps        install what the build needs (compiler, pkg-config, OpenSSL headers)
#: make             build ./wspush, for a node that is alone
#: make CLUSTER=1   build ./wspush with cluster support (make deps CLUSTER=1 goes before it)
all: wspush

include contrib/install.mk tests/fuzz.mk tests/cross.mk tests/bench.mk tests/coverage.mk tests/fresh.mk

wspush: build/$(if $(CLUSTER),cluster,release)/wspush FORCE
	@cmp -s $< $@ || cp $< $@

#: make run         build and serve with config.ini
run: wspush
	@./wspush -c config.ini

#: make echo        build ./build/echo, a WebSocket echo server of the same parts
echo: build/release/echo
	@cp $< build/echo

# A program is linked from its own object, which may replace functions, and from what it uses of the library.
PROGRAMS = wspush $(basename $(notdir $(wildcard tests/*/*.c)))
modules = $(MODULES) $(if $(findstring cluster,$(1)),$(CLUSTER_MODULES))
libraries = $(if $(findstring cluster,$(1)),$(CLUSTER_LIBS)) $(OPENSSL_LIBS)

.SECONDEXPANSION:
define RULES
build/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(COMPILE) $$(FLAGS_$(1)) -c -o $$@ $$<

build/$(1)/console.o: build/console.inc build/client.inc

build/$(1)/libwspush.a: $$(patsubst %,build/$(1)/%.o,$$(call modules,$(1)))
	@rm -f $$@
	$$(AR) rcs $$@ $$^

$(PROGRAMS:%=build/$(1)/%): build/$(1)/%: build/$(1)/$$$$(basename $$$$(wildcard $$$$*.c tests/*/$$$$*.c)).o build/$(1)/libwspush.a
	$$(CC) $$(CFLAGS) $$(FLAGS_$(1)) -pthread $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) $$(filter %.a,$$^) $$(call libraries,$(1))
endef
$(foreach variant,$(VARIANTS),$(eval $(call RULES,$(variant))))

# Nodes of later protocol versions, for upgrade tests: only what names the version is compiled again.
VERSIONED := $(shell grep -lw WIRE_VERSION cluster_*.c)
define VERSION_RULES
build/cluster-v$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(COMPILE) $$(FLAGS_cluster-asan) -DWIRE_VERSION=$(1) -c -o $$@ $$<

build/cluster-v$(1)/wspush: build/cluster-asan/wspush.o $(VERSIONED:%.c=build/cluster-v$(1)/%.o) build/cluster-asan/libwspush.a
	$$(CC) $$(CFLAGS) $$(FLAGS_cluster-asan) -pthread $$(LDFLAGS) -o $$@ $$^ $$(call libraries,cluster)
endef
$(foreach version,3 4,$(eval $(call VERSION_RULES,$(version))))

# The console's page, as the numbers of an array: the hashes of its style and its script, then all of it, compressed.
SHA256 := $(shell command -v sha256sum || echo openssl dgst -sha256 -r)
build/console.inc: console.html Makefile
	@mkdir -p $(@D)
	gzip -9nc <$< >$@.gz
	for tag in style script; do \
	    { echo; sed "1,/^<$$tag>/d;/^<.$$tag>/,\$$d" $<; } | $(SHA256) >$@.$$tag || exit; done
	{ cut -c -64 $@.style $@.script | sed 's/../0x&,/g'; od -An -v -tu1 $@.gz | sed 's/[0-9][0-9]*/&,/g'; } >$@.new
	mv $@.new $@

# The client module, compressed.
build/client.inc: wspush.js Makefile
	@mkdir -p $(@D)
	gzip -9nc <$< >$@.gz
	od -An -v -tu1 $@.gz | sed 's/[0-9][0-9]*/&,/g' >$@.new
	mv $@.new $@

# Tests that make calls fail: allocations, name look-ups, replies of Redis.
ALLOCATIONS = -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
build/%/test_scarce: LDFLAGS += $(ALLOCATIONS),--wrap=crypto_hash_password
build/%/test_cluster build/%/test_cluster_adopt build/%/test_cluster_order build/%/test_event: LDFLAGS += $(ALLOCATIONS)
build/%/test_cluster_bus build/%/test_cluster_link build/%/test_redis build/%/test_webhook: LDFLAGS += -Wl,--wrap=getaddrinfo
build/%/test_session: LDFLAGS += -Wl,--wrap=account_ticket_version
build/%/test_webhook_client: LDFLAGS += -Wl,--wrap=recv
build/%/test_cluster_registry: LDFLAGS += -Wl,--wrap=store_read_clock,--wrap=redis_next,--wrap=redis_append,--wrap=redis_is_connected

#: make test-deps   install what the tests need as well (curl, jq, websocat, Redis, RabbitMQ, nginx, Chromium)
#: make test        run the whole test suite, or with ONLY="NAME..." these parts (tests/README.md)
#: make check-unit  run the unit tests, or with ONLY=json that one; check-e2e, check-cluster, check-conformance
test check-unit check-e2e check-cluster check-conformance:
	@targets=$$(tests/run.sh --targets $(filter --%,$(@:check-%=--%)) $(ONLY)) && \
	    $(MAKE) --no-print-directory -s -j2 test-build TARGETS="$$targets"
	@tests/run.sh $(filter --%,$(@:check-%=--%)) $(ONLY)

test-build: $(TARGETS)

#: make layers      check what modules include, the names of functions, and that a single node has nothing of a cluster
layers:
	@$(MAKE) --no-print-directory -s -j2 build/release/wspush
	@tests/e2e/layers.sh

deps test-deps:
	@contrib/deps.sh $(if $(filter deps,$@),build,test)

#: make dist        make wspush-VERSION.tar.gz of the last commit; the same commit makes the same archive
dist:
	@[ -e .git ] || { echo 'make dist takes the files from git: this folder is no clone'; exit 1; }
	@[ -z "$$(git status --porcelain)" ] || echo 'what is not committed is left out'
	@version=$$(git show HEAD:wspush.c | sed -n 's/^.define VERSION "\(.*\)"$$/\1/p') && \
	    name=wspush-$${version:?wspush.c has no VERSION} && \
	    git -c tar.umask=022 archive --prefix=$$name/ -o $$name.tar HEAD && \
	    gzip -9nf $$name.tar && echo $$name.tar.gz

#: make clean       remove what was built
clean:
	rm -rf build wspush

help:
	@sed -n 's/^#: //p' $(MAKEFILE_LIST)

FORCE:

.PHONY: FORCE all help run echo layers test test-build test-fresh check-unit check-e2e check-cluster check-conformance deps test-deps dist clean install uninstall deb fuzz fuzz-build fuzz-deps test-cross cross-deps bench bench-quick bench-cluster bench-deps chaos scale coverage
.SECONDARY:

-include $(wildcard build/*/*.d build/*/tests/*/*.d)
