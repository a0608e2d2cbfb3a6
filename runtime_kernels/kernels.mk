# Targets for the kernels; included by the top-level Makefile.

.PHONY: bench-kernels test-kernels test-arm test-sanitizers arm-runtimes

bench-kernels: $(READY)
	$(PY) -m pip install --quiet --editable '.[test,executorch]'
	$(PY) -m bitvox.benchmarks.kernels

test-kernels: $(READY)
	$(PY) -m pytest tests/kernels -q

# Unpacks ONNX Runtime and ExecuTorch for ARM into build/arm, where tests/matrix looks for them (70 MB).
arm-runtimes: $(READY)
	$(PY) tests/emulation.py

test-arm: $(READY)
	$(PY) -m pytest tests/kernels -q -k arm
	$(PY) -m pytest tests/matrix -q

# Every unit of this CPU, the widest of which take minutes to build; `make test` has AVX2 alone.
test-sanitizers: $(READY)
	BITVOX_SANITIZED_PATHS= $(PY) -m pytest tests/kernels -q -k sanitizer
