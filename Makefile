# Everything sets up what it needs; a second call of anything that is done is instant.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := demo/LunarLander-v3/lander-1
# Clipper and the libraries it is compared with, in one environment: the same torch, numpy and gymnasium
BENCH := .venv-bench/bin/python
BENCH_READY := .venv-bench/.ready
BENCH_PIP = $(BENCH) -m pip install --quiet --disable-pip-version-check

FUZZ_SECONDS ?= 300
READERS := agent checkpoint config metrics fault

.PHONY: setup native demo test test-all mutants fuzz reliability lint bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt $(wildcard src/clipper/engine/native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Clipper needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 2; }
	@echo "setting up .venv (about two minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) scikit-build-core nanobind numpy $(foreach t,cmake ninja,$(shell command -v $(t) >/dev/null || echo $(t)))
	@$(PIP) --no-build-isolation --config-settings=cmake.define.CLIPPER_WERROR=ON -e ".[dev]"
	@$(BIN)/python -c 'import importlib.util as u; raise SystemExit(not u.find_spec("clipper.engine._native"))' || \
		if command -v c++ || command -v g++ || command -v clang++; then echo "the native engine does not compile:"; $(MAKE) native; \
		else echo "no C++ compiler: the reference engine will be used, which is slower"; fi
	@touch $(READY)

# compiles the native engine by itself, aside, with all that the compiler says
native:
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S src/clipper/engine/native -B build/native \
		-DPython_EXECUTABLE=$(abspath $(BIN)/python) -DCLIPPER_WERROR=ON
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/native --parallel 2

# the main job: train LunarLander-v3 until it is solved, examine it, film it, draw its curve
demo: setup
	@if [ -d $(DEMO)/checkpoints ]; then $(BIN)/clipper resume $(DEMO); \
	else $(BIN)/clipper train LunarLander-v3 --seed 1 --out demo --name lander; fi
	@$(BIN)/clipper evaluate $(DEMO)
	@$(BIN)/clipper render $(DEMO) --out demo/lander.gif
	@$(BIN)/clipper plot $(DEMO) --out demo/lander.png

test: lint
	@$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: lint
	@$(BIN)/python -m pytest -n 2
	@$(MAKE) --no-print-directory mutants
	@$(MAKE) --no-print-directory fuzz

# bugs that others have had, put into a copy of the sources one at a time: the tests must find each
mutants: setup
	@$(BIN)/python tests/mutants/try_mutants.py

# the tests that keep the promises of docs/RELIABILITY.md, whose numbers are written anew
reliability: setup
	@rm -rf build/facts
	@CLIPPER_FACTS=$(abspath build/facts) $(BIN)/python -m pytest -n 2 $$($(BIN)/python tests/reliability.py --tests)
	@CLIPPER_FACTS=$(abspath build/facts) $(BIN)/python tests/mutants/try_mutants.py
	@$(BIN)/python tests/reliability.py build/facts

# the readers of files under atheris, each for five minutes, two at a time; where it has no wheel it is skipped
fuzz: setup
	@$(PIP) --only-binary :all: atheris==3.0.0 2> /dev/null || true
	@printf '%s\n' $(READERS) | xargs -P 2 -I {} $(BIN)/python tests/fuzz/run.py {} --seconds $(FUZZ_SECONDS)

# about an hour of a quiet machine; some rows alone: make bench ROWS="CartPole-v1 gae"
bench: $(BENCH_READY)
	@$(BENCH) benchmarks/speed/run.py $(ROWS)
	@test -n "$(ROWS)" || $(BENCH) benchmarks/speed/solve.py
	@$(BENCH) benchmarks/speed/run.py --readme
	@$(BENCH) benchmarks/speed/solve.py --readme

$(BENCH_READY): pyproject.toml benchmarks/speed/requirements.txt $(wildcard src/clipper/engine/native/*)
	@echo "setting up .venv-bench (about five minutes the first time)"
	@test -x $(BENCH) || $(PYTHON) -m venv .venv-bench
	@$(BENCH_PIP) -r benchmarks/speed/requirements.txt
	@$(BENCH_PIP) scikit-build-core nanobind numpy $(foreach t,cmake ninja,$(shell command -v $(t) >/dev/null || echo $(t)))
	@$(BENCH_PIP) --no-build-isolation -e ".[box2d,mujoco,atari]"
	@$(BENCH) -c 'import clipper.engine._native' || { echo "without the native engine there is nothing to compare"; exit 1; }
	@touch $(BENCH_READY)

lint: setup
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > .lint-imports.log 2>&1 || { cat .lint-imports.log; exit 1; }
	@$(BIN)/vulture

clean:
	rm -rf .venv .venv-bench demo build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
