"""The operators inside the real ExecuTorch runtime, against the NumPy specification of the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from operator_libraries import unbuilt_executorch

from bitvox.runtime_kernels import pack, reference
from bitvox.runtime_kernels.adapters.executorch import library

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")
if missing := unbuilt_executorch():
    pytest.skip(missing, allow_module_level=True)

from bitvox.exporters.executorch.quiet import quiet
from bitvox.runtime_kernels.adapters.executorch import operators  # noqa: F401 - registers them

WIDTHS = range(2, 9)
Arguments = Sequence[object]


class Widths(torch.nn.Module):
    """One call of an operator per weight, on the same input."""

    def __init__(self, operator: Any, weights: Sequence[bytes], bias: Any, arguments: Arguments) -> None:
        super().__init__()
        self.operator, self.arguments, self.count = operator, arguments, len(weights)
        self.register_buffer("bias", None if bias is None else torch.from_numpy(bias))
        for index, weight in enumerate(weights):
            self.register_buffer(f"weight{index}", torch.frombuffer(bytearray(weight), dtype=torch.uint8))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(
            self.operator(x, getattr(self, f"weight{i}"), self.bias, *self.arguments)
            for i in range(self.count)
        )


def program(
    module: torch.nn.Module,
    x: NDArray[np.float32],
    dynamic: int | None,
    alignment: int = 64,
    least: int = 2,
) -> bytes:
    """The module as an ExecuTorch program whose dimension `dynamic`, if any, may be up to 400."""
    from executorch.exir import ExecutorchBackendConfig, to_edge

    lengths = {} if dynamic is None else {dynamic: torch.export.Dim("d", min=least, max=400)}
    with quiet():
        exported = torch.export.export(
            module,
            (torch.from_numpy(x),),
            dynamic_shapes=(lengths,),
        )
        config = ExecutorchBackendConfig(constant_tensor_alignment=alignment)
        return bytes(to_edge(exported).to_executorch(config).buffer)


def load(program: bytes | Path) -> Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]:
    from executorch.extension.pybindings import portable_lib

    library.load_library()
    if isinstance(program, Path):
        module = portable_lib._load_for_executorch(str(program))
    else:
        module = portable_lib._load_for_executorch_from_buffer(program)

    def run(x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        assert program  # the runtime reads the buffer for as long as it runs
        return [y.numpy() for y in module.run_method("forward", (torch.from_numpy(x),))]

    return run


def codes_of(shape: tuple[int, ...], bits: int) -> NDArray[np.uint8]:
    return np.random.default_rng(bits).integers(0, 1 << bits, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_linear_is_its_specification(random: np.random.Generator, activation: str) -> None:
    scale = random.uniform(0.01, 0.02, 19).astype(np.float32)
    bias = random.standard_normal(19).astype(np.float32)
    weights = [bytes(pack(codes_of((19, 75), bits), bits, scale)) for bits in WIDTHS]
    module = Widths(torch.ops.bitvox.linear, weights, bias, (19, activation, 0.0, 0))
    x = random.standard_normal((2, 30, 75)).astype(np.float32)
    run = load(program(module, x, dynamic=1))
    for frames in (1, 30, 133):
        x = random.standard_normal((2, frames, 75)).astype(np.float32)
        outputs = run(x)
        eager = [y.numpy() for y in module(torch.from_numpy(x))]
        for bits, y, same in zip(WIDTHS, outputs, eager, strict=True):
            codes = codes_of((19, 75), bits)
            expected = reference.linear(
                x.reshape(-1, 75), codes, bits, scale, bias=bias, gelu=activation == "gelu"
            )
            assert y.shape == (2, frames, 19)
            np.testing.assert_allclose(y.reshape(-1, 19), expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(y, same)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("x_scale", [0.0, 0.03125])
def test_conv1d_is_its_specification(random: np.random.Generator, groups: int, x_scale: float) -> None:
    shape = (24, 8 // groups, 5)
    scale = random.uniform(0.01, 0.02, 24).astype(np.float32)
    weights = [bytes(pack(codes_of(shape, bits), bits, scale)) for bits in WIDTHS]
    zero = 3 if x_scale else 0
    module = Widths(torch.ops.bitvox.conv1d, weights, None, (24, 5, 2, 4, 1, groups, "none", x_scale, zero))
    x = random.standard_normal((1, 8, 50)).astype(np.float32)
    run = load(program(module, x, dynamic=2))
    for frames in (5, 50, 333):  # the last takes more than one run of output frames
        x = random.standard_normal((1, 8, frames)).astype(np.float32)
        for bits, y in zip(WIDTHS, run(x), strict=True):
            expected = reference.conv1d(
                x,
                codes_of(shape, bits),
                bits,
                scale,
                stride=2,
                padding=4,
                groups=groups,
                x_scale=x_scale or None,
                x_zero_point=zero,
            )
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 5, 7])
def test_wave_conv1d_is_torch_conv1d(random: np.random.Generator, stride: int) -> None:
    class Filters(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer(
                "weight", torch.from_numpy(random.standard_normal((19, 1, 7)).astype(np.float32))
            )
            self.register_buffer("bias", torch.from_numpy(random.standard_normal(19).astype(np.float32)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.bitvox.wave_conv1d(x, self.weight, self.bias, stride)

    module = Filters()

    def check(run: Callable[[NDArray[np.float32]], list[NDArray[np.float32]]], frames: int) -> None:
        x = random.standard_normal((2, 1, frames)).astype(np.float32)
        expected = torch.nn.functional.conv1d(torch.from_numpy(x), module.weight, module.bias, stride)
        np.testing.assert_allclose(run(x)[0], expected.numpy(), rtol=1e-5, atol=1e-5)

    # torch.export takes a length that may be 1 for a constant, so one output frame has a program of its own.
    check(load(program(module, np.zeros((2, 1, 7), np.float32), dynamic=None)), 7)
    least = 7 + stride
    run = load(program(module, np.zeros((2, 1, 50), np.float32), dynamic=2, least=least))
    for frames in (least, 50, 333):  # the last takes whole vectors and what is left of one
        check(run, frames)


@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_instance_norm_is_torch_group_norm(random: np.random.Generator, activation: str) -> None:
    class Norm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.from_numpy(random.standard_normal(6).astype(np.float32)))
            self.register_buffer("shift", torch.from_numpy(random.standard_normal(6).astype(np.float32)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.bitvox.instance_norm(x, self.scale, self.shift, 1e-5, activation)

    module = Norm()
    run = load(program(module, random.standard_normal((2, 6, 50)).astype(np.float32), dynamic=2))
    for frames in (2, 50, 333):
        # A mean far above the deviation is where a variance in one pass fails.
        x = 100 + random.standard_normal((2, 6, frames)).astype(np.float32)
        expected = torch.nn.functional.group_norm(torch.from_numpy(x), 6, module.scale, module.shift)
        expected = torch.nn.functional.gelu(expected) if activation == "gelu" else expected
        np.testing.assert_allclose(run(x)[0], expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_layer_norm_and_attention_are_torchs(random: np.random.Generator, dtype: torch.dtype) -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("scale", "shift"):
                values = torch.from_numpy(random.standard_normal(24).astype(np.float32))
                self.register_buffer(name, values.to(dtype))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            norm = torch.ops.bitvox.layer_norm(x, None, self.scale, self.shift, 1e-5)
            both = torch.ops.bitvox.layer_norm(x, norm, self.scale, self.shift, 1e-5)
            return norm, both, torch.ops.bitvox.attention(norm, both, x, 3, 0.5)

    module = Block()
    run = load(program(module, random.standard_normal((2, 50, 24)).astype(np.float32), dynamic=1))
    for frames in (2, 50, 333):
        x = random.standard_normal((2, frames, 24)).astype(np.float32)
        for found, expected in zip(run(x), module(torch.from_numpy(x)), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_weight_that_is_not_aligned_gives_the_same(random: np.random.Generator, tmp_path: Path) -> None:
    weight = bytes(pack(codes_of((4, 64), 3), 3, 0.01))
    arguments = (4, "none", 0.0, 0)
    x = random.standard_normal((3, 64)).astype(np.float32)
    outputs = {}
    for alignment in (16, 64):
        # Four floats come first and move the weight by sixteen bytes.
        module = Widths(torch.ops.bitvox.linear, [weight], np.ones(4, np.float32), arguments)
        buffer = program(module, x, dynamic=0, alignment=alignment)
        (tmp_path / "program.pte").write_bytes(buffer)
        assert (buffer.index(weight) % 64 == 0) == (alignment == 64)
        (outputs[alignment],) = load(tmp_path / "program.pte")(x)
    np.testing.assert_array_equal(outputs[16], outputs[64])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: b"XXXX" + w[4:], "packed weight"),
        (lambda w: w[:-64], "size"),
        (lambda w: bytes(pack(codes_of((32, 64), 3), 3, 0.01)), "outputs"),
        (lambda w: bytes(pack(codes_of((16, 96), 3), 3, 0.01)), "inputs"),
    ],
    ids=["header", "size", "outputs", "inputs"],
)
def test_a_bad_weight_is_an_error_and_no_crash(
    capfd: pytest.CaptureFixture[str], change: Callable[[bytes], bytes], says: str
) -> None:
    weight = bytes(pack(codes_of((16, 64), 3), 3, 0.01))
    module = Widths(torch.ops.bitvox.linear, [change(weight)], None, (16, "none", 0.0, 0))
    x = np.zeros((3, 64), np.float32)
    run = load(program(module, x, dynamic=0))
    with pytest.raises(RuntimeError, match="0x12"):
        run(x)
    assert says in capfd.readouterr().err
