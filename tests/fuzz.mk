# fuzz.mk - fuzz targets, tests/fuzz/fuzz_*.c: with libFuzzer in the variant `fuzz`; in `asan` with replay.c, which
# replays their corpora. Some calls of the modules end in the target instead (WRAP_*).
FUZZ = http ws json config token ticket resume command stream receiver
FUZZ_CC ?= clang
VARIANTS += fuzz
FLAGS_fuzz = $(ASAN) -fsanitize=fuzzer-no-link
WRAP_receiver = -Wl,--wrap=recv,--wrap=send,--wrap=close
WRAP_command = -Wl,--wrap=crypto_random
WRAP_stream = -Wl,--wrap=crypto_random,--wrap=account_submit,--wrap=recv,--wrap=send,--wrap=writev,--wrap=shutdown,--wrap=close

# The messages between nodes are parsed without a library of a cluster.
FUZZ_MODULES = cluster_crypto cluster_wire

build/fuzz/%: override CC = $(FUZZ_CC)
build/fuzz/fuzz_%: LDFLAGS += -fsanitize=fuzzer $(WRAP_$(@F:fuzz_%=%))
$(FUZZ:%=build/fuzz/fuzz_%): $(FUZZ_MODULES:%=build/fuzz/%.o)

$(FUZZ:%=build/asan/replay_%): build/asan/replay_%: build/asan/tests/fuzz/fuzz_%.o build/asan/tests/fuzz/replay.o $(FUZZ_MODULES:%=build/asan/%.o) build/asan/libwspush.a
	$(CC) $(CFLAGS) $(FLAGS_asan) -pthread $(WRAP_$*) $(LDFLAGS) -o $@ $^ $(OPENSSL_LIBS)

fuzz-build: $(FUZZ:%=build/fuzz/fuzz_%)

#: make fuzz        fuzz each target for SECONDS_EACH=60 (make fuzz-deps goes before it)
SECONDS_EACH ?= 60
fuzz:
	@MAKE='$(MAKE)' FUZZ_CC='$(FUZZ_CC)' tests/fuzz/fuzz.sh $(SECONDS_EACH) $(ONLY)

fuzz-deps:
	@contrib/deps.sh fuzz
