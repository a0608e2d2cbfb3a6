# Two commands: `make demo` and `make test`. Both set up what they need, and both are safe to run twice.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: help setup demo test test-all lint types reference-model reference-whisper reference-keywords reference-languages clean

help:
	@echo "make demo             compile the shipped model for two voices and three budgets, and print what came out"
	@echo "make test             lint, types and tests, without the slow ones"
	@echo "make test-all         with them: every family and width on every runtime, every instruction set"
	@echo "make reference-model  train the reference CTC model again (hours)"
	@echo "make reference-whisper  train the reference encoder-decoder again (hours)"
	@echo "make reference-keywords  train the two reference keyword models again (an hour and a half)"
	@echo "make reference-languages  train the classifier of the experiment on languages (25 minutes; needs espeak-ng)"

setup: $(READY)

# Installed twice: bitvox's operators are built against the executorch package, which is there only then.
$(READY): pyproject.toml CMakeLists.txt $(wildcard compiler/*.txt compiler/passes/*.cpp runtime_kernels/*.txt runtime_kernels/src/* runtime_kernels/include/bitvox/* \
		runtime_kernels/adapters/executorch/*)
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable '.[executorch,experiments,test]'
	$(PY) -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(READY)
	$(PY) -m bitvox.benchmarks.demo --out demo

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(READY)
	$(PY) tests/link_package.py build/types
	$(PY) -m mypy build/types/bitvox

# Files in their order: by number of tests, which is the default, the long ones that lower programs come last.
test: lint types
	$(PY) -m pytest tests/test_tiny.py -q
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m "not slow"

test-all: lint types
	$(PY) -m pytest tests/test_tiny.py -q
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q

reference-model: $(READY)
	$(PY) -m bitvox.benchmarks.reference_model.train --out build/reference-model --hours 2.1

reference-whisper: $(READY)
	$(PY) -m bitvox.benchmarks.reference_model.train_whisper --out build/reference-whisper --hours 2.6

reference-keywords: $(READY)
	for half in first second; do \
		$(PY) -m bitvox.benchmarks.reference_model.train_keywords --half $$half \
			--out build/reference-keywords/$$half --hours 0.8 || exit; \
	done

reference-languages: $(READY)
	$(PY) -m bitvox.benchmarks.reference_model.make_languages --out build/reference-languages/data
	$(PY) -m bitvox.benchmarks.reference_model.train_languages --data build/reference-languages/data \
		--out build/reference-languages --hours 0.38

clean:
	rm -rf $(VENV) build demo

-include runtime_kernels/*.mk benchmarks/*.mk
