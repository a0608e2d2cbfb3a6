# Targets for the kernels; included by the top-level Makefile.

.PHONY: bench-kernels test-kernels test-arm test-sanitizers

bench-kernels: $(READY)
	$(PY) -m pip install --quiet --editable '.[test,executorch]'
	$(PY) -m bitvox.benchmarks.kernels

test-kernels: $(READY)
	$(PY) -m pytest tests/kernels -q

test-arm: $(READY)
	$(PY) -m pytest tests/kernels -q -k arm

test-sanitizers: $(READY)
	$(PY) -m pytest tests/kernels -q -k sanitizers
