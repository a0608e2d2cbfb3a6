# A full-size model with packed weights beside ONNX Runtime's own float and int8.

.PHONY: bench-packed-onnx

bench-packed-onnx: $(READY)
	$(PY) -m bitvox.benchmarks.resident
