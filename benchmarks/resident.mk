# A full-size model with packed weights beside the float and int8 of both runtimes.

.PHONY: bench-packed

bench-packed: $(READY)
	$(PY) -m bitvox.benchmarks.resident
