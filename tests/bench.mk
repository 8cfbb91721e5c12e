# bench.mk - measurements, and the long run of a cluster under faults.

# The server without pollers, every connection in one poll(), for the picture of tests/bench/bench.sh.
VARIANTS += nopollers
FLAGS_nopollers = -DPOLLER_FROM=1000000

# Linux alone binds a thread to a processor.
build/%/tests/bench/bench.o: override CPPFLAGS += -D_GNU_SOURCE

#: make bench       measure a node beside the limit of this machine, in eight minutes (make bench-deps draws)
bench: build/release/wspush build/release/bench build/nopollers/wspush
	@tests/bench/bench.sh

#: make bench-quick the same in half a minute, less exactly
bench-quick: build/release/wspush build/release/bench
	@tests/bench/bench.sh quick

#: make bench-cluster  measure what two nodes, Redis and RabbitMQ cost (make test-deps goes before it)
bench-cluster: build/release/wspush build/release/bench build/cluster/wspush
	@tests/bench/bench_cluster.sh

#: make scale       measure 2, 4 and 8 nodes of a cluster on this machine
scale: build/cluster/wspush
	@tests/bench/scale.sh

bench-deps:
	@contrib/deps.sh bench

#: make chaos       run a cluster under random faults for SECONDS=60, with SEED=n for those of an earlier run
# CLUSTER_WSPUSH=FILE runs another build. A shell has SECONDS of its own, so only the command line counts.
CLUSTER_WSPUSH ?= build/cluster-asan/wspush
option = $(if $(filter command%,$(origin $(1))),--$(2) $($(1)))
chaos: $(CLUSTER_WSPUSH)
	@python3 -B tests/cluster/chaos.py --binary $(CLUSTER_WSPUSH) $(call option,SECONDS,seconds) $(call option,SEED,seed) $(call option,NODES,nodes)
