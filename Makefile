# make setup | demo | test | test-fast | check | docs | bench | clean
# Each target first installs .venv; bench installs bench/.venv.
PYTHON ?= python3
BIN := .venv/bin
# Size of the demo, and overrides such as SET="finetune.max_epochs=1".
ROWS ?= 20000
SET ?=
# Another training may use the launcher's default port.
FREE_PORT := $(BIN)/python -c "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"
DEMO := --config configs/demo.yaml $(SET)

.PHONY: setup demo test test-fast test-long check docs bench clean

setup: .venv/core

# DeepSpeed's build imports torch, so torch is installed first and build isolation is off. $(1): the environment.
define install_core
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt pip setuptools wheel numpy torch
$(1)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e .
endef

.venv/core: pyproject.toml constraints.txt
	$(call install_core,.venv)
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

# Environment of the benchmarks: the project and its peers. .venv does not change.
bench/.venv/ready: pyproject.toml constraints.txt bench/peers.txt
	$(call install_core,bench/.venv)
	bench/.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -r bench/peers.txt
	touch $@

demo: .venv/core
	$(BIN)/promoter-bert generate demo/demo.tsv --rows $(ROWS)
	$(BIN)/promoter-bert build demo/demo.tsv --replace $(DEMO)
	$(BIN)/promoter-bert shards $(DEMO)
	$(BIN)/promoter-bert verify demo/shards/k3
	rm -rf runs/demo
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/deepspeed --master_port $$($(FREE_PORT)) train.py $(DEMO)
	$(BIN)/promoter-bert ceiling $(DEMO)

# Tests with several hosts need these tools. If they cannot be installed, these tests are skipped with a message.
# Two test files run at a time. The long integration tests start first.
HOST_TOOLS := openssh-server pdsh iproute2
test: .venv/dev
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(HOST_TOOLS) >/dev/null 2>&1; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(HOST_TOOLS) >/dev/null || true; fi
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long" tests

# Minutes of training with torchrun, Slurm (if installed), Ray, lost hosts and processes, a GPU's configuration, and the
# modules of bench. `make test` leaves them out.
test-long: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long tests

# Tests that start no other programs and need no hosts: under three minutes on two cores.
test-fast: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not processes and not hosts" tests

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documents as a site, in the folder site/. A broken link is an error.
docs: .venv/dev
	$(BIN)/mkdocs build -q

# Each takes some minutes. ridge needs the dataset of `make demo`.
BENCH := bench/.venv/bin/python -m bench
bench: bench/.venv/ready
	$(BENCH).dataset.build
	$(BENCH).shards.tokens
	$(BENCH).shards.write
	$(BENCH).shards.end_to_end
	$(BENCH).stream.read
	$(BENCH).training.train
	$(BENCH).dataset.near_duplicates 6739258
	$(BENCH).quality.ridge demo/dataset.duckdb

clean:
	rm -rf .venv bench/.venv site demo runs shards/k[1-8]
