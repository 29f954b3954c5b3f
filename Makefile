# make setup | demo | test | test-fast | check | docs | bench | clean
# Each target first installs .venv; bench installs bench/.venv.
PYTHON ?= python3
BIN := .venv/bin
# Size of the demo, and overrides such as SET="finetune.max_epochs=1".
ROWS ?= 20000
SET ?=
# Another training may use the launcher's default port.
FREE_PORT := $(BIN)/python -c "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"
# Old versions of make find `command` only in a line with a redirection, which they pass to a shell.
GPU_TOOL := $(shell command -v nvidia-smi 2>/dev/null)
# The launcher reports errors only, and looks for GPUs where there may be one. Python starts it, because the first line
# of its file is invalid in a folder with a space in its name.
LAUNCHER := $(BIN)/python $(BIN)/deepspeed -q
DEEPSPEED := PATH="$(CURDIR)/$(BIN):$$PATH" $(if $(GPU_TOOL),,DS_ACCELERATOR=cpu) $(LAUNCHER)
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

# An interrupted demo resumes; one with other rows or settings starts anew. The second training has no pretraining.
# SET may hold quotes, so the shell reads it from the environment.
DEMO_SETTINGS := { echo "$$DEMO_OPTIONS"; cat config.yaml configs/demo.yaml ds_config.json; }
demo: export DEMO_OPTIONS = $(ROWS) $(SET)
demo: .venv/core
	@case " $$DEMO_OPTIONS" in *\ run.name=*|*\ run.path=*|*\ shards.k=*|*\ shards.path=*|*\ dataset.path=*) \
		echo "error: SET: names and places of the demo are fixed; fix: type its commands, docs/demo-in-python.md" >&2; exit 1;; esac
	@$(DEMO_SETTINGS) | cmp -s - demo/settings || rm -rf demo runs/demo
	@mkdir -p demo && $(DEMO_SETTINGS) > demo/settings
	test -e demo/demo.tsv || $(BIN)/promoter-bert generate demo/demo.tsv --rows $(ROWS) --kind native
	test -e demo/dataset.duckdb || $(BIN)/promoter-bert build demo/demo.tsv $(DEMO)
	$(BIN)/promoter-bert shards $(DEMO)
	$(BIN)/promoter-bert verify demo/shards/k3
	$(DEEPSPEED) --master_port $$($(FREE_PORT)) train.py $(DEMO)
	$(DEEPSPEED) --master_port $$($(FREE_PORT)) train.py $(DEMO) finetune.start=scratch run.path=demo/runs run.name=scratch
	$(BIN)/promoter-bert ceiling $(DEMO)
	@echo "With pretraining (demo) and without it (scratch):"
	$(BIN)/promoter-bert compare runs/demo demo/runs/scratch -o demo/compare.html
	$(BIN)/promoter-bert report runs/demo
	$(BIN)/promoter-bert query --config configs/demo.yaml \
		"select split, run, round(corr(prediction, expression), 3) as pearson, count(*) as promoters \
		from predictions join promoters using (id) group by all order by all"
	head -n 3 demo/demo.tsv | cut -f 1 | $(BIN)/promoter-bert predict runs/demo - -o -
	@echo "The report is runs/demo/report.html. Next, after 'source .venv/bin/activate':"
	@echo "  promoter-bert explain demo/demo.tsv --model runs/demo    draw the effect of each base in 20 promoters"
	@echo "  promoter-bert stats --config configs/demo.yaml           draw the dataset as a page"
	@echo "  promoter-bert init --assay mpra-generic                  start with a table of your own"

# Tests with several hosts need these tools. If they cannot be installed, these tests are skipped with a message.
# Two test files run at a time. The long integration tests start first.
HOST_TOOLS := openssh-server pdsh iproute2
test: .venv/dev
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(HOST_TOOLS) >/dev/null 2>&1; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(HOST_TOOLS) >/dev/null || true; fi
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long" tests

# Minutes of training: toy tasks, shards from the web, a full disk, torchrun, Slurm (if installed), Ray, lost hosts and
# processes, a GPU's configuration, and the modules of bench. `make test` leaves them out.
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
