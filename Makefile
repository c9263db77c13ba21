# make demo    a real cluster with load and the server, until Ctrl-C
# make test    everything that has to hold, on real servers
# The other targets are parts of these.

# Programs that tests/lab/install provides, for machines that lack them.
export PATH := $(PATH):$(or $(DARAJI_LAB_HOME),/opt/daraji-lab)/bin

# The lab makes network namespaces.
as_root := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test test-rust test-ui test-lab test-promql test-faults test-switchovers install pictures ui

demo:
	tests/lab/demo

test: install test-rust test-ui test-lab

install:
	tests/lab/install

test-rust:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test

test-ui:
	cd ui && npm ci --no-audit --no-fund && npm run check && npm run test:browser

test-lab:
	cargo build --release
	@echo 'acceptance: a real cluster, about 10 minutes'
	$(as_root) env "PATH=$$PATH" tests/lab/acceptance --server target/release/daraji

# Generated queries in a real Prometheus and in ours, 40,000 in a minute; e.g. make test-promql COUNT=100000 SEED=7. The test
# prints how to run a single disagreement again.
test-promql: install
	cargo test --test promql -- differential --count $(or $(COUNT),40000) --seed $(or $(SEED),1)

# Every fault of the lab against the table of what must come of it, three times each: some hours. It may be interrupted and
# goes on where it was; FAULTS passes arguments, e.g. make test-faults FAULTS='--fault host-loss --runs 1'.
test-faults:
	cargo build --release
	$(as_root) env "PATH=$$PATH" tests/lab/faults-run --server target/release/daraji --resume $(FAULTS)

# 100 planned switchovers that nobody may be woken by: about 45 minutes.
test-switchovers:
	cargo build --release
	$(as_root) env "PATH=$$PATH" tests/lab/switchovers --server target/release/daraji --count 100

# The README's pictures, from a real cluster with real faults: about 15 minutes.
pictures:
	cargo build --release
	cd ui && npm ci --no-audit --no-fund
	$(as_root) env "PATH=$$PATH" tests/lab/acceptance --server target/release/daraji --name orders --pictures

ui:
	cd ui && npm ci --no-audit --no-fund && npm run build
