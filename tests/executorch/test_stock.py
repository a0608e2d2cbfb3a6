"""`--kernels stock` on a tiny model: the widths that XNNPACK has, sized exactly, and no library of ours."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import bitvox
from bitvox.compiler.frontend.model import ConvGeometry, Site
from bitvox.compiler.lowering.packed import pack_weight
from bitvox.compiler.passes.plan import Range, SitePlan
from bitvox.runtime_kernels.adapters.executorch import library
from tiny_families import TINY

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")

from bitvox.exporters.executorch.audit import DELEGATE
from bitvox.exporters.executorch.program import Program
from bitvox.exporters.executorch.quiet import quiet
from bitvox.exporters.executorch.session import MODEL_NAME
from bitvox.exporters.executorch.stock import StockSite

with quiet():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.extension.pybindings import portable_lib


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one layer: a program of stock kernels is lowered three times, to be sized, shipped and compared."""
    return TINY["wav2vec2"].of_one_layer().write(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def request_for(checkpoint: Path, voice: Path) -> bitvox.CompileRequest:
    """By myQASR, which asks for any width; `auto` knows what XNNPACK has and asks for that."""
    return bitvox.CompileRequest(
        str(checkpoint), voice, target="executorch", kernels="stock", method="myqasr"
    )


@pytest.fixture(scope="module")
def compiled(
    request_for: bitvox.CompileRequest, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> bitvox.CompileReport:
    """A bundle of linear layers at both widths."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITVOX_CACHE", str(shared_cache))
        out = tmp_path_factory.mktemp("bundle") / "stock"
        largest = bitvox.make_plan(dataclasses.replace(request_for, budget=1_000_000)).total_bytes
        return bitvox.compile_bundle(dataclasses.replace(request_for, budget=largest - 2000, out=out))


def test_the_bytes_on_disk_are_those_that_were_planned(compiled: bitvox.CompileReport) -> None:
    on_disk = sum(path.stat().st_size for path in compiled.out.iterdir())
    assert compiled.budget is not None and compiled.bytes == on_disk <= compiled.budget
    # A plan is sized with numbers as long as calibration may find.
    quantised = sum(site.bits is not None for site in compiled.plan.sites)
    assert compiled.plan.total_bytes - 40 * quantised <= on_disk <= compiled.plan.total_bytes
    assert bitvox.verify(compiled.out) == []


def test_odd_widths_are_stored_as_the_next_that_xnnpack_has(
    compiled: bitvox.CompileReport, request_for: bitvox.CompileRequest
) -> None:
    operators = {site.name: site.operator for site in bitvox.load(request_for.model).sites}  # type: ignore[arg-type]
    plan = bitvox.Bundle.open(compiled.out).manifest.quant_plan("manifest")
    widths = {entry.bits for entry in plan.sites if operators[entry.site] == "linear"}
    assert widths == {4, 8}
    assert {entry.bits for entry in plan.sites if operators[entry.site] == "conv1d"} == {None, 8}
    assert any(entry.reason.endswith("bits stored as 8, XNNPACK's next") for entry in plan.sites)
    assert compiled.parity < 1e-3


def test_the_manifest_asks_for_nothing_of_ours(
    compiled: bitvox.CompileReport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest = bitvox.Bundle.open(compiled.out).manifest
    assert manifest.quant_plan("manifest").kernels == "stock"
    assert set(manifest.audit.values()) == {DELEGATE}
    assert DELEGATE in manifest.operators
    assert not any(name.startswith(("bitvox", "quantized")) for name in manifest.operators)
    assert set(manifest.operators) == set(Program.read((compiled.out / MODEL_NAME).read_bytes()).operators)
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "not here")
    library.load_library.cache_clear()
    try:
        assert bitvox.verify(compiled.out) == []
    finally:
        library.load_library.cache_clear()


def test_every_budget_is_met_and_used(
    request_for: bitvox.CompileRequest, compiled: bitvox.CompileReport
) -> None:
    """Plans of many budgets cost one lowering, and what they say of their bytes was held to a file above."""
    with pytest.raises(bitvox.RequestError) as refused:
        bitvox.make_plan(dataclasses.replace(request_for, budget=1000))
    found = re.search(
        r"the smallest bundle of this model for this voice takes (\d+) bytes", str(refused.value)
    )
    assert found, refused.value
    smallest = int(found.group(1))
    totals = []
    for budget in range(smallest, smallest + 10_000, 1999):
        plan = bitvox.make_plan(dataclasses.replace(request_for, budget=budget))
        totals.append(plan.total_bytes)
        assert plan.total_bytes <= budget
    assert totals == sorted(totals) and totals[0] == smallest < totals[-1]
    with pytest.raises(bitvox.RequestError, match=f"takes {smallest} bytes"):
        bitvox.make_plan(dataclasses.replace(request_for, budget=smallest - 1))


@pytest.mark.parametrize("name", [MODEL_NAME, "bitvox.json"])
def test_a_flipped_byte_is_named(compiled: bitvox.CompileReport, tmp_path: Path, name: str) -> None:
    for path in compiled.out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(bitvox.InputError, match=f"{name}: damaged"):
        bitvox.open_runner(bitvox.Bundle.open(tmp_path))


def test_a_convolution_is_what_xnnpack_computes() -> None:
    """But for values on the boundary of two codes; a bias is coarse beside a depthwise one's few products."""
    generator = torch.Generator().manual_seed(0)
    channels, taps = 96, 31
    weight = 0.2 * torch.randn(channels, 1, taps, generator=generator)
    bias = 0.3 * torch.randn(channels, generator=generator)
    x = torch.randn(1, channels, 400, generator=generator)
    y = torch.nn.functional.conv1d(x, weight, bias, padding=15, groups=channels)
    spans = [Range(float(one.min()), float(one.max())) for one in (x, y)]
    geometry = ConvGeometry(stride=1, padding=15, dilation=1, groups=channels)
    site = Site("depthwise", "conv1d", tuple(weight.shape), "conv", "depthwise", True, geometry)
    packed = pack_weight(weight.numpy(), 8, "channel", 1.0)
    plan = SitePlan("depthwise", 8, input_range=spans[0], output_range=spans[1])
    module = StockSite(site, packed, bias.numpy(), plan).eval()
    with quiet():
        exported = torch.export.export(module, (x,))
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
        found = portable_lib._load_for_executorch_from_buffer(program.buffer).forward((x,))[0]
    with torch.no_grad():
        assert np.mean(found.numpy() != module(x).numpy()) < 1e-4
