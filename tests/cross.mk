# cross.mk - other machines and systems; tests/support/cross.sh names their compilers.
SYSTEMS = freebsd netbsd openbsd macos
VARIANTS += armhf s390x musl $(SYSTEMS) $(SYSTEMS:%=cluster-%)
$(foreach system,$(SYSTEMS),$(eval FLAGS_cluster-$(system) = $(FLAGS_cluster)))

#: make test-cross  build the unit tests for 32 bits, for big-endian and for musl, and run them; compile for BSD and macOS (make cross-deps)
test-cross:
	@tests/support/cross.sh

cross-deps:
	@contrib/deps.sh cross
