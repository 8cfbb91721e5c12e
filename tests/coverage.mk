# coverage.mk - how many lines of each module the tests run, by gcov. The build has the modules of a cluster; what a
# killed server has run is not counted.
VARIANTS += cluster-coverage
FLAGS_cluster-coverage = $(FLAGS_cluster) -O0 -g --coverage -fprofile-update=atomic
GCOV ?= gcov

#: make coverage    show which share of each module's lines the unit tests run, or with ALL=1 the whole suite
coverage: export COVERAGE = build/cluster-coverage
coverage:
	@rm -f $(COVERAGE)/*.gcda
	@$(MAKE) --no-print-directory -s -j2 test-build TARGETS="$(COVERAGE)/wspush $$(tests/run.sh --targets $(if $(ALL),,--unit))"
	@WSPUSH=$(COVERAGE)/wspush CLUSTER_WSPUSH=$(COVERAGE)/wspush tests/run.sh $(if $(ALL),,--unit) | grep -v '^ok' || :
	@$(GCOV) -n -o $(COVERAGE) $(addsuffix .c,$(MODULES) $(CLUSTER_MODULES) wspush) 2>/dev/null | awk -F "[':% ]+" ' \
	    /^File/ { file = $$2 } \
	    /^Lines/ && file ~ /^[a-z_]+[.]c$$/ { lines += $$5; ran += $$3 * $$5 / 100; printf "%-22s %6.1f %% of %d\n", file, $$3, $$5 } /^Lines/ { file = "" } \
	    END { printf "%-22s %6.1f %% of %d\n", "all", 100 * ran / lines, lines }'
