# One of setup, test, test-isa, lint, demo, docs, runner, clean. Everything lives in .venv; nothing outside this folder is touched.
#
# torch: on Linux the default index serves a build with several GB of CUDA libraries. To get the CPU build, point pip at
# the CPU index that pytorch.org names for pip (environment variable PIP_EXTRA_INDEX_URL, or PIP_FIND_LINKS for wheels on
# disk); its version 2.13.0+cpu ranks above 2.13.0, so pip takes it by itself. Both satisfy constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup lint test test-isa demo docs runner clean
.DEFAULT_GOAL := setup

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is older than 3.10; call make with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,rivals,executorch]' --constraint constraints.txt
	@touch $@

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@mkdir -p build/types/tprune && ln -sfn $(CURDIR)/tprune/* $(CURDIR)/cnn $(CURDIR)/export $(CURDIR)/bench build/types/tprune/
	MYPYPATH=build/types $(BIN)/mypy --package tprune

# worksteal: each process starts with a row of whole files, and what a crash leaves of one goes to another process.
# loadfile and loadscope of pytest-xdist 3.8 repeat the crashed test and break off.
test: setup
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal --max-worker-restart 32

# The tests that compute, under every instruction set that this processor has below its own.
test-isa: setup
	$(BIN)/python -m tests.isa --numprocesses logical --maxprocesses 4 --dist worksteal --max-worker-restart 32

demo: setup
	rm -rf demo
	$(BIN)/tprune demo --out demo

# The documentation as a site, in build/site; a broken link is an error. The result pages are rendered first.
docs: $(VENV)/.docs
	$(BIN)/python docs/render.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]' --constraint constraints.txt
	@touch $@

# The C++ runner for this machine and, where the cross compiler is, for 64-bit ARM; tprune-et where ExecuTorch's wheel
# for that machine can be had.
wheel = $$($(BIN)/python -c 'from tprune.bench.libraries import abi, wheels; print(wheels.files("executorch", $(1)).folder / "executorch")' 2>/dev/null)
build_runner = wheel="$(call wheel,$(2))"; cd android_runner && cmake --preset $(1) -DEXECUTORCH_ROOT="$$wheel" && cmake --build --preset $(1) --parallel

runner: setup
	$(call build_runner,host,next(a for a in abi.ABIS if a.native))
	@command -v aarch64-linux-gnu-g++ >/dev/null || echo 'no aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu): nothing built for phones'
	@! command -v aarch64-linux-gnu-g++ >/dev/null || { $(call build_runner,arm64,abi.named("arm64-v8a")); }

clean:
	rm -rf $(VENV) demo build android_runner/build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
