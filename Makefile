# make demo    a real cluster with load and the server, until Ctrl-C
# make test    everything that has to hold, on real servers
# The other targets are parts of these.

.PHONY: demo test test-rust test-ui test-lab install ui

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
	cd ui && npm ci --no-audit --no-fund && npm run check

test-lab:
	cargo build --release
	tests/lab/acceptance --server target/release/daraji

ui:
	cd ui && npm ci --no-audit --no-fund && npm run build
