# What people and scripts call. Both `demo` and `test` set up what they need.

SHELL := bash
.SHELLFLAGS := -o pipefail -c
CARGO ?= cargo
RUN_DIR ?= .kubefed

PREFIX ?= /usr/local

.PHONY: demo build check test bench setup install

# Two local members, the guide's objects in them, drift undone; ends by itself with CI=true.
demo: build
	$(CARGO) run --quiet --bin kubefed -- up --demo --dir $(RUN_DIR)

build: setup
	$(CARGO) build --workspace --bins

# Format, lints, dependency arrows.
check: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test --quiet --package kubefed-tests --test crate_arrows

test: build
	@log=$$(mktemp) && trap 'rm -f "$$log"' EXIT && $(CARGO) test --workspace | tee "$$log" && \
	  awk '/^test result:/ { passed += $$4 } END { print passed " tests passed" }' "$$log"

# What the server costs beside its budget, in two minutes.
bench: setup
	$(CARGO) build --release --workspace --bins
	$${CARGO_TARGET_DIR:-target}/release/bench

# The programs, and the names by which kubefed is KubeFed's program and a plugin of kubectl.
install: setup
	KUBEFED_GIT_COMMIT=$$(git rev-parse HEAD || echo unknown) \
	KUBEFED_GIT_TREE_STATE=$$([ -z "$$(git status --porcelain)" ] && echo clean || echo dirty) \
	KUBEFED_BUILD_DATE=$$(date -u +%Y-%m-%dT%H:%M:%SZ) $(CARGO) build --release --locked --workspace --bins
	install -d $(DESTDIR)$(PREFIX)/bin
	cd $${CARGO_TARGET_DIR:-target}/release && install -m 755 kubefed kubefed-apiserver \
	  kubefed-controller-manager kubefed-localcluster $(abspath $(DESTDIR)$(PREFIX))/bin
	for name in kubefedctl kubectl-kubefed kubectl_complete-kubefed; do \
	  ln -sf kubefed $(DESTDIR)$(PREFIX)/bin/$$name; done

# protoc and its well-known types are needed to build the etcd client, kubectl by the tests.
setup:
	@sh tests/setup.sh
