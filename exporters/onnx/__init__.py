"""The ONNX target: stock ONNX Runtime, no custom operator."""
