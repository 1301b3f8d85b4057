# Needs Python 3.11 or later with venv, make and a C++ compiler. Packages are fetched once.
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# pip takes a wheel of the same version for the one that is installed.
PIP_FORGET = -m pip uninstall -qq --yes onhand
WHEEL = $$(echo build/editable/onhand-*.whl)
PINNED = pyproject.toml constraints.txt locks/device.txt CMakeLists.txt $(wildcard src/onhand/native/src/*)

.PHONY: setup demo test static lean-tests check coverage sanitize test-arm fuzz clean

setup: .venv/.dev .venv-lean/.ready  ## both environments: the full one, and a device's

demo: .venv/.host  ## build the house assistant under a budget, show the report, talk to it
	.venv/bin/python -m examples.house_assistant.demo

test:  ## everything that CI runs: style, types, core, a device's tests without torch, then all others
	$(MAKE) -j2 static lean-tests
	scripts/check --rest

static: .venv/.dev  ## style, types, and every line of core
	scripts/check --static

lean-tests: .venv-lean/.ready  ## a device's tests, in a device's environment
	scripts/check --lean

check: .venv/.dev  ## the quick part of `test`, before every commit
	scripts/check

coverage: .venv/.dev  ## every test once more, watched line by line
	scripts/check --coverage

sanitize:  ## the native kernels under sanitizers: addresses and undefined behaviour, then threads
	scripts/check_native address
	WORDS=--steps scripts/check_native thread

test-arm:  ## the native kernels on ARM, emulated: needs g++-aarch64-linux-gnu and qemu-user-static
	scripts/check_native arm

fuzz: .venv/.dev  ## all parsers of outside data (by atheris, where it is), then damaged bundles
	.venv/bin/python -m tests.fuzz
	.venv/bin/python -m tests.native.fuzz_bundle --count 20000

clean:
	rm -rf build .venv .venv-lean .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The project, editable; compiled once for both environments.
build/.editable: $(PINNED) scripts/build_editable
	$(PYTHON) -m venv --clear build/tools
	build/tools/bin/python scripts/build_editable
	touch $@

# What the demo needs: no torch.
.venv/.host: build/.editable
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_FORGET)
	.venv/bin/python $(PIP_INSTALL) "$(WHEEL)[host]"
	touch $@

# The tools and the libraries that tests compare with as well.
.venv/.dev: build/.editable
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_FORGET)
	.venv/bin/python $(PIP_INSTALL) "$(WHEEL)[host,dev]"
	touch .venv/.host $@

# What a device has, and a test runner.
.venv-lean/.ready: build/.editable
	$(PYTHON) -m venv .venv-lean
	.venv-lean/bin/python $(PIP_FORGET)
	.venv-lean/bin/python $(PIP_INSTALL) --require-hashes --requirement locks/device.txt
	.venv-lean/bin/python $(PIP_INSTALL) "$(WHEEL)" pytest pytest-xdist hypothesis coverage openai
	touch $@
