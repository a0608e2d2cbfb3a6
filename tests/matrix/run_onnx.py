"""Run models in ONNX Runtime, of this machine or of an emulated one: run_onnx.py LIBRARY FOLDER...

Each folder holds `model.onnx` and its input `x.npy`, and gets its outputs as `y.npz`. Prints the path of the
kernels in the operator library.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np
import onnxruntime

library, *folders = sys.argv[1:]
for folder in map(Path, folders):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    found = session.run(outputs, {"x": np.load(folder / "x.npy")})
    np.savez(folder / "y.npz", **dict(zip(outputs, found, strict=True)))
entry = ctypes.CDLL(library).bitvox_isa
entry.restype = ctypes.c_char_p
print(entry().decode())
