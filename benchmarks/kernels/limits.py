"""What this machine can do at best, measured in the same process as everything else."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np


class Limits:
    """Compiles and calls `limits.cpp`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        library = Path(self._folder.name) / "limits.so"
        source = Path(__file__).with_name("limits.cpp")
        subprocess.run(["g++", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.vnni_peak.restype = ctypes.c_double
        self._library.amx_peak.restype = ctypes.c_double
        self._library.read_bandwidth.restype = ctypes.c_double
        self._buffer = np.ones(256 << 20, np.uint8)

    def vnni_peak(self) -> float:
        """Operations per second (two per multiply-add) of one core's 8-bit dot products; the best of five."""
        return max(float(self._library.vnni_peak()) for _ in range(5))

    def amx_peak(self) -> float:
        """The same of its matrix registers, which the kernels must have been granted."""
        return max(float(self._library.amx_peak()) for _ in range(5))

    def busy(self, threads: int) -> None:
        """The loop of `vnni_peak` on so many threads at once: what a second core gives to anything at all."""
        others = [threading.Thread(target=self._library.vnni_peak) for _ in range(threads - 1)]
        for other in others:
            other.start()
        self._library.vnni_peak()
        for other in others:
            other.join()

    def read_bandwidth(self) -> float:
        """Bytes per second of one core reading 256 MB; the best of five."""
        pointer = self._buffer.ctypes.data_as(ctypes.c_void_p)
        size = ctypes.c_size_t(self._buffer.size)
        return max(float(self._library.read_bandwidth(pointer, size)) for _ in range(5))
