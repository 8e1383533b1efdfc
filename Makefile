# `make demo` and `make test` need Python 3.11 or newer and make; they do the rest.
PYTHON ?= python3
# LATEST=1 installs the newest version of every package, into an environment of its own, instead of
# those of constraints.txt.
LATEST ?=
# A pinned torch; for a machine without a GPU, a CPU build is smaller (see README).
TORCH ?= $(if $(LATEST),torch,torch==2.13.0)
# Torch's builds for GPUs bring the Triton that they need; beside others the tests need one.
TRITON ?= $(if $(LATEST),triton,triton==3.7.1); sys_platform == "linux"
# Tests run in so many processes, a file's in one.
JOBS ?= 2
VENV := $(if $(LATEST),.venv-latest,.venv)
BIN := $(VENV)/bin
NEWEST := --upgrade --upgrade-strategy eager
PIP := $(BIN)/pip install -q $(if $(LATEST),$(NEWEST),-c constraints.txt)
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# The oldest Python that Quaver supports: the newest packages that it can have, all others can.
LOCK_PYTHON ?= python3.11

.PHONY: always demo test test-kernels check lint types format gpu-check system lock wheel clean

demo: $(VENV)/installed
	@mkdir -p demo
	$(BIN)/quaver say "Hello there. This is Quaver, speaking in eight bits on your own machine." --seed 1 --out demo/hello.wav
	@echo
	@echo "Made $(VENV), installed Quaver, and spoke with the bundled voice, without network or GPU."
	@echo "Listen:     demo/hello.wav"
	@echo "Try next:   $(BIN)/quaver say \"Your own words.\" --voice rms --out mine.mp3"
	@echo "            $(BIN)/quaver models      $(BIN)/quaver doctor"

test: $(VENV)/developer
	$(PYTEST)
	@$(INTERPRETED)

# Triton's interpreter runs the kernels without a GPU, at sizes that take minutes.
INTERPRETED = if $(BIN)/python -c "import triton" 2>/dev/null; then \
		echo "Kernels in Triton's interpreter:"; \
		TRITON_INTERPRET=1 $(PYTEST) tests/*/*_kernels.py; \
	else echo "Triton has no package for this machine: the kernels are not tested."; fi
test-kernels: $(VENV)/developer
	@$(INTERPRETED)

# What a developer runs before a commit.
check: lint types
	$(PYTEST) -m "not slow"

lint: $(VENV)/developer
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/developer
	$(BIN)/mypy

format: $(VENV)/developer
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# On a machine with a GPU and the dependencies installed; writes benchmarks/results/.
gpu-check:
	PYTHONPATH=src $(PYTHON) scripts/gpu_check.py

# What tests need besides Python packages: flite speaks the sentences that nano is judged against, a
# browser opens the reports and the page, and curl and ffmpeg hear what is served.
PACKAGES = flite chromium curl ffmpeg
system:
	@for each in $(PACKAGES); do command -v $$each >/dev/null || missing="$$missing $$each"; done; \
	if [ -n "$$missing" ]; then \
		$$(command -v sudo) apt-get update -q && \
		$$(command -v sudo) apt-get install -y -q --no-install-recommends $$missing; fi

# The newest versions of all packages, written to constraints.txt. Takes two minutes.
lock:
	$(LOCK_PYTHON) scripts/lock.py $(TORCH)

# A wheel in dist/.
wheel: $(VENV)/installed
	$(BIN)/pip wheel -q --no-deps --wheel-dir dist .

# with LATEST, whenever it is asked for
$(VENV)/installed: pyproject.toml constraints.txt $(if $(LATEST),always)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)" -e .
	touch $@

$(VENV)/developer: $(VENV)/installed
	$(PIP) "$(TORCH)" -e ".[dev]"
	$(BIN)/python -c "import triton" 2>/dev/null || $(PIP) '$(TRITON)'
	touch $@

clean:
	rm -rf .venv .venv-latest build dist demo .mypy_cache .ruff_cache .pytest_cache
