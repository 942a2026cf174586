# Every task of the project. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where cargo builds: CARGO_TARGET_DIR, what cargo is configured to, or target/.
TARGET = $(shell cargo metadata --locked --no-deps --format-version 1 | sed -nE 's/.*"target_directory":"([^"]*)".*/\1/p')
# Options of `tidemark demo`: make demo DEMO='--duration 60s'
DEMO ?=
# Options of the benchmark: make bench BENCH='--points 1000000'
BENCH ?=
# Rounds of the drills altogether, one drill by the start of its name, the first seed: make drill DRILL=a SEED=42
ROUNDS ?=
DRILL ?=
SEED ?=
LONGEST_FILE := 500

# A stray pkg-config ahead of the system's breaks the build of openssl-sys.
ifneq ($(wildcard /usr/bin/pkg-config),)
export PKG_CONFIG ?= /usr/bin/pkg-config
endif

.PHONY: help
help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Tests run the program as it is built here: `cargo test` alone would leave an older one in its place. The tests need the
# same features, so that little is built twice.
.PHONY: debug
debug:
	cargo build --locked --workspace --all-targets

.PHONY: demo
demo: ## The whole pipeline at work on this machine's own metrics, nothing to install
	@echo "Builds the program first: about five minutes on two cores, once; \`make test\` builds none of it again."
	@echo "Then rollups, an alert and a correction are shown; the first windows close after some 20 s."
	cargo build --locked --package tidemark
	$(TARGET)/debug/tidemark demo $(DEMO)

.PHONY: test
test: debug ## All unit tests and the suite; ends with their total
	tests/total.sh cargo test --locked --workspace --no-fail-fast -- --show-output

.PHONY: servers
servers: ## Provide the real servers that tests run against; 10 minutes the first time
	tests/servers.sh

.PHONY: build
build: ## The program, optimised: target/release/tidemark
	cargo build --locked --release --workspace

.PHONY: bench
bench: build ## Points per second, against a real Kafka
	$(TARGET)/release/bench $(BENCH)

.PHONY: bench-peers
bench-peers: build ## The benchmark with Flink SQL on the same topic, in the same run
	$(TARGET)/release/bench --peers $(BENCH)

.PHONY: drill
drill: ## Faults on real servers while points flow: make drill ROUNDS=200, make drill DRILL=a SEED=42
	cargo build --locked --release --workspace --features tidemark/set-clock
	$(TARGET)/release/drill $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(DRILL),--drill $(DRILL)) $(if $(SEED),--seed $(SEED))

.PHONY: golden
golden: ## Rewrite the expected output of the suite's cases; read the difference before committing it
	TIDEMARK_GOLDEN=rewrite cargo test --locked --workspace --test tidemark
	git status --short tests

.PHONY: lint
lint: ## Formatting, clippy without warnings, length of files
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@git ls-files -co --exclude-standard '*.rs' | xargs wc -l | awk '$$2 != "total" && $$1 > $(LONGEST_FILE) \
		{ print $$2 " has " $$1 " lines, more than $(LONGEST_FILE): what is its second idea?"; bad = 1 } END { exit bad }'

.PHONY: audit
audit: ## Advisories, licences and sources of all dependencies, by deny.toml
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install cargo-deny --locked"; exit 1; }
	cargo deny --locked check bans licenses sources
	@if cargo deny --locked fetch db; then cargo deny --locked check --disable-fetch advisories; \
		else echo "advisories could not be fetched: they were not checked"; fi

.PHONY: notices
notices: debug ## The licences of everything that is linked into the program: THIRD_PARTY.md
	$(TARGET)/debug/notices >THIRD_PARTY.md

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all
