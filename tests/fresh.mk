# fresh.mk - `make test-fresh`: the quick start on bare machines.

#: make test-fresh  type the README's quick start on a bare Debian 12 and 13, build and install packages there (as root; 20 min)
FRESH = bookworm trixie
test-fresh:
	@for release in $(FRESH); do tests/fresh/fresh.sh $$release || failed="$$failed $$release"; done; \
	    [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }
