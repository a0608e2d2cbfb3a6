"""A full-size model whose weights stay in n bits in memory, beside ONNX Runtime's own float and int8."""
