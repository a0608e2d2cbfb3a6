"""PyTorch's own linears, and XNNPACK's through ExecuTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Run = Callable[[], object]


def use_one_thread() -> None:
    """Keep PyTorch and ExecuTorch on the calling thread, whose CPU time is what is measured."""
    from executorch.extension.pybindings import portable_lib

    torch.set_num_threads(1)
    portable_lib._unsafe_reset_threadpool(1)


def fp32(x: NDArray[np.float32], outputs: int) -> Run:
    """torch.nn.Linear."""
    module = torch.nn.Linear(x.shape[1], outputs, bias=False)
    return _inference(module, x)


def dynamic_int8(x: NDArray[np.float32], outputs: int) -> Run:
    """torch.ao.quantization.quantize_dynamic."""
    module = torch.nn.Sequential(torch.nn.Linear(x.shape[1], outputs, bias=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, dtype=torch.qint8)
    return _inference(quantised, x)


def _inference(module: torch.nn.Module, x: NDArray[np.float32]) -> Run:
    tensor = torch.from_numpy(x)

    def run() -> object:
        with torch.inference_mode():
            return module(tensor)

    return run


def xnnpack(kind: str, x: NDArray[np.float32], outputs: int, copy: int = 0) -> Run:
    """`kind` is 8da8w, 8da4w (both per channel) or 8da4w-g32; `copy` tells apart loads of a program."""
    method = _load(kind, x.shape[1], outputs, copy)
    tensor = torch.from_numpy(x)
    return lambda: method.execute([tensor])


@cache
def _load(kind: str, depth: int, outputs: int, copy: int) -> Any:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(_lower(kind, depth, outputs))
    _programs.append(program)
    return program.load_method("forward")


_programs: list[Any] = []  # a method does not keep its program alive


@cache
def _lower(kind: str, depth: int, outputs: int) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization import quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup
    from torchao.quantization.quant_api import Int8DynamicActivationIntxWeightConfig

    module = torch.nn.Sequential(torch.nn.Linear(depth, outputs, bias=False)).eval()
    dtype = torch.int8 if kind == "8da8w" else torch.int4  # type: ignore[attr-defined]
    granularity = PerGroup(32) if kind.endswith("g32") else PerAxis(0)
    with _silence():
        config = Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=granularity)
        quantize_(module, config)
        rows = torch.export.Dim("rows", min=1, max=2048)
        program = torch.export.export(
            module, (torch.randn(50, depth),), dynamic_shapes=({0: rows},), strict=True
        )
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)
