"""ONNX Runtime's adapter: the operator library, and session options that have it."""
