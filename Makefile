# `make demo` and `make test` need Python 3.11 or newer and make; they do the rest.
PYTHON ?= python3
# A pinned torch; for a machine without a GPU, a CPU build is smaller (see README).
TORCH ?= torch==2.13.0
# Tests run in so many processes, a file's in one.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format gpu-check system clean

demo: $(VENV)/installed
	@mkdir -p demo
	$(BIN)/quaver say "Hello there. This is Quaver, speaking in eight bits on your own machine." --seed 1 --out demo/hello.wav
	@echo
	@echo "Made .venv, installed Quaver, and spoke with the bundled voice, without network or GPU."
	@echo "Listen:     demo/hello.wav"
	@echo "Try next:   $(BIN)/quaver say \"Your own words.\" --voice rms --out mine.mp3"
	@echo "            $(BIN)/quaver models      $(BIN)/quaver doctor"

test: $(VENV)/developer
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/developer
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow"

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

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/developer: $(VENV)/installed
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache
