"""The same truth everywhere: each target, width and kind of layer, on this processor and on emulated ARM."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from operator_libraries import unbuilt_executorch, unbuilt_onnxruntime

import emulation
from bitvox.runtime_kernels.adapters.onnxruntime.library import library_path
from layers import FloatArray

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")
if missing := unbuilt_onnxruntime() or unbuilt_executorch():
    pytest.skip(missing, allow_module_level=True)

from cases import CASES, Case

HERE = Path(__file__).parent
PROCESSORS = {processor.model: processor for processor in emulation.PROCESSORS}

Outputs = Mapping[Case, Mapping[int, FloatArray]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Path]:
    """A folder for every case, with its file in it."""
    top = tmp_path_factory.mktemp("matrix")
    folders = {case: top / str(index) for index, case in enumerate(CASES)}
    for case, folder in folders.items():
        case.write(folder)
    return folders


EMULATED = [pytest.param(model, marks=pytest.mark.slow) for model in PROCESSORS]


@pytest.fixture(scope="module", params=["this processor", *EMULATED])
def outputs(request: pytest.FixtureRequest, files: dict[Case, Path]) -> Outputs:
    """What every case computes on one processor."""
    if request.param == "this processor":
        return {**run_onnx_here(files), **run_executorch_here(files)}
    if reason := emulation.absent():
        pytest.skip(reason)
    return run_emulated(PROCESSORS[request.param], files)


@pytest.mark.parametrize(
    ("case", "bits"),
    [(case, bits) for case in CASES for bits in case.widths],
    ids=lambda value: f"{value} bits" if isinstance(value, int) else str(value),
)
def test_every_target_computes_what_the_specification_says(outputs: Outputs, case: Case, bits: int) -> None:
    expected = case.expected(bits)
    np.testing.assert_allclose(outputs[case][bits], expected, rtol=0, atol=case.tolerance(bits))


def run_onnx_here(files: Mapping[Case, Path]) -> Outputs:
    script = [sys.executable, HERE / "run_onnx.py", library_path()]
    subprocess.run([*script, *of("onnx", files).values()], check=True, capture_output=True)
    return read_onnx(files)


def run_executorch_here(files: Mapping[Case, Path]) -> Outputs:
    from bitvox.exporters.executorch.session import run_program

    return {
        case: dict(zip(case.widths, run_program(folder / "model.pte", "forward", case.x), strict=True))
        for case, folder in of("executorch", files).items()
    }


def run_emulated(processor: emulation.Processor, files: Mapping[Case, Path]) -> Outputs:
    onnx_operators, operators, runner = built()
    path = processor.run(emulation.PYTHON, HERE / "run_onnx.py", onnx_operators, *of("onnx", files).values())
    assert path.split() == [processor.path], "the best path of this processor was not the one expected"
    outputs = dict(read_onnx(files))
    for case, folder in of("executorch", files).items():
        (folder / "x").write_bytes(case.x.tobytes())
        sizes = [str(size) for size in case.x.shape]
        processor.run(runner, operators, folder / "model.pte", folder / "x", folder / "y", *sizes)
        values = np.fromfile(folder / "y", np.float32).reshape(len(case.widths), *case.expected(8).shape)
        outputs[case] = dict(zip(case.widths, values, strict=True))
    return outputs


@functools.cache
def built() -> tuple[Path, Path, Path]:
    return (*emulation.build_libraries(), emulation.build_runner(HERE / "run_program.cpp"))


def read_onnx(files: Mapping[Case, Path]) -> Outputs:
    found = {case: np.load(folder / "y.npz") for case, folder in of("onnx", files).items()}
    return {case: {bits: arrays[f"y{bits}"] for bits in case.widths} for case, arrays in found.items()}


def of(target: str, files: Mapping[Case, Path]) -> dict[Case, Path]:
    return {case: folder for case, folder in files.items() if case.target == target}
