# Targets: setup, lint, test, test-isa, test-lowest, demo, docs, runner, wheel, clean. Python packages go into .venv; nothing
# outside this folder changes, except the cache folder (see `tprune doctor`), which `runner` and `wheel` fill.
#
# torch: on Linux the default index serves a build with several GB of CUDA libraries. To get the CPU build, point pip at
# the CPU index that pytorch.org names for pip (environment variable PIP_EXTRA_INDEX_URL, or PIP_FIND_LINKS for wheels on
# disk); its version 2.13.0+cpu ranks above 2.13.0, so pip takes it by itself. Both satisfy constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CPP := $(wildcard android_runner/src/*) $(wildcard android_runner/tests/*.cpp)
# A folder that was moved after `make setup` is installed again: what is in .venv holds its old path.
ifneq ($(CURDIR),$(shell cat $(INSTALLED) 2>/dev/null))
.PHONY: $(INSTALLED)
endif

.PHONY: setup lint test test-isa test-lowest demo docs runner wheel clean
.DEFAULT_GOAL := setup

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is older than 3.10; call make with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]' --constraint constraints.txt
	@echo '$(CURDIR)' >$@

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	@mkdir -p build/types/tprune && ln -sfn $(CURDIR)/tprune/* $(CURDIR)/cnn $(CURDIR)/export $(CURDIR)/bench build/types/tprune/
	MYPYPATH=build/types $(BIN)/mypy --package tprune

# worksteal: each process starts with a row of whole files, and what a crash leaves of one goes to another process.
# loadfile and loadscope of pytest-xdist 3.8 repeat the crashed test and break off.
test: setup
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal --max-worker-restart 32

# The tests that compute, under every instruction set that this processor has below its own.
test-isa: setup
	$(BIN)/python -m tests.isa --numprocesses logical --maxprocesses 4 --dist worksteal --max-worker-restart 32

# The quick tests with the lowest release of every direct dependency, in an environment of its own.
test-lowest: setup
	$(BIN)/python -m tests.package.lowest build/lowest

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
package = $$($(BIN)/python -c 'from tprune.bench.libraries import abi, wheels; print(wheels.files("executorch", $(1)).folder / "executorch")' 2>/dev/null)
build_runner = package="$(call package,$(2))"; cd android_runner && cmake --preset $(1) -DEXECUTORCH_ROOT="$$package" $(CMAKE_OPTIONS) && cmake --build --preset $(1) --parallel

runner: setup
	$(call build_runner,host,next(a for a in abi.ABIS if a.native))
	@command -v aarch64-linux-gnu-g++ >/dev/null || echo 'no aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu): nothing built for phones'
	@! command -v aarch64-linux-gnu-g++ >/dev/null || { $(call build_runner,arm64,abi.named("arm64-v8a")); }

# dist/: the source distribution, and a wheel built from it that also holds the runners for this machine and for phones.
wheel: setup
	rm -rf dist build/wheel && mkdir -p build/wheel
	$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("dist")' >/dev/null
	tar -xzf dist/*.tar.gz -C build/wheel --strip-components 1
	$(BIN)/python -m tprune.bench.runner.build build/wheel/bench/runner/prebuilt
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./build/wheel
	@ls -l dist

clean:
	rm -rf $(VENV) demo dist build android_runner/build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
