"""Encoder-decoders in ExecuTorch: caches in the program, every width at every site, the text of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encoder_decoders import DECODERS, clip

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.loading import load_model
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.lowering.packed import PackedTensor, lower
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import WIDTHS, Kernels, QuantPlan
from bitvox.compiler.passes.start import start_plan
from bitvox.exporters.runner import open_session
from bitvox.runtime_kernels.adapters.executorch import library
from support import PackedCosts

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")
if not library.library_path().is_file():
    pytest.skip(f"{library.library_path()} is not built (make setup)", allow_module_level=True)

from bitvox.exporters.executorch import exporter
from bitvox.exporters.executorch.audit import DELEGATE, TIED_KERNEL
from bitvox.exporters.executorch.decoder_session import DecoderSession
from bitvox.exporters.onnx.resident import resident_weight


@pytest.fixture(scope="module", params=DECODERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(DECODERS[request.param].write(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="module")
def skeleton(model: SpeechModel) -> bytes:
    return exporter.build_skeleton(model)


# Forms that are lowered anew, which takes a minute or more: of one family.
@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(DECODERS["whisper"].write(tmp_path_factory.mktemp("checkpoint")))


def open_decoder(folder: Path) -> DecoderSession:
    session = open_session("executorch", folder, num_threads=1)
    assert isinstance(session, DecoderSession)
    return session


def plan_at(model: SpeechModel, bits: int, kernels: Kernels = "packed") -> QuantPlan:
    plan = start_plan(model, PackedCosts(), "executorch", "default", "static", kernels)
    sites = (site if site.bits is None else site.replace(bits=bits) for site in plan.sites)
    plan = exporter.settle(model, plan.replace(sites=tuple(sites)))
    return CalibratePass("min-max").run(PassContext(model, (clip(0), clip(1)), PackedCosts()), plan)


def test_every_width_agrees_at_every_site(tmp_path: Path, model: SpeechModel, skeleton: bytes) -> None:
    for bits in WIDTHS:
        plan = plan_at(model, bits)
        packed = lower(model, plan)
        written = exporter.write_model(skeleton, packed, tmp_path)
        report = exporter.prove(model, packed, written, clip(2), allow_float=False)
        assert list(report.parity.difference) == [site.name for site in model.sites]
        assert report.parity.worst[1] < 1e-3
        assert report.parity.shipped < 1e-3
        quantised = {report.kernels[site.site] for site in plan.sites if site.bits}
        assert quantised == {"bitvox::linear", "bitvox::conv1d"}
        (tied,) = (stored.weight for stored in packed.sites if stored.site.tied)
        assert isinstance(tied, PackedTensor)
        assert written.model.read_bytes().count(resident_weight(tied).tobytes()) == 1
        assert "bitvox::lookup.out" in written.operators


def test_rows_of_a_state_can_be_left_out_repeated_and_swapped(
    tmp_path: Path, model: SpeechModel, skeleton: bytes
) -> None:
    exporter.write_model(skeleton, lower(model, plan_at(model, 8)), tmp_path)
    graphs = open_decoder(tmp_path)
    features = model.processor.features(clip(0))
    _, state = graphs.step(graphs.encode(features), np.array([[1, 2, 3]]))
    _, state = graphs.step(graphs.reorder(state, np.array([0, 0])), np.array([[4], [5]]))
    logits, state = graphs.step(graphs.reorder(state, np.array([1, 0, 1])), np.array([[6], [6], [7]]))
    last, _ = graphs.step(graphs.reorder(state, np.array([2])), np.array([[1, 2]]))
    rows = ([1, 2, 3, 5, 6], [1, 2, 3, 4, 6], [1, 2, 3, 5, 7], [1, 2, 3, 5, 7, 1, 2])
    for row, read in zip((*logits, *last), rows, strict=True):
        expected, _ = graphs.step(graphs.encode(features), np.array([read]))
        np.testing.assert_allclose(row, expected[0], atol=1e-3 * np.abs(expected).max())


def test_full_precision_writes_what_the_model_writes(tmp_path: Path, whisper: SpeechModel) -> None:
    """test_encoder_decoder_onnx holds what the model writes to transformers' `generate`."""
    exporter.export_full_precision(whisper, tmp_path)
    session, processor = open_decoder(tmp_path), whisper.processor
    for options in (DecodingOptions(), DecodingOptions(beams=3), DecodingOptions(timestamps=True, beams=4)):
        for seed in range(3):
            expected = processor.listen(whisper.session, clip(seed), options)
            assert processor.listen(session, clip(seed), options) == expected


def test_stock_kernels_store_the_tied_weight_once(tmp_path: Path, whisper: SpeechModel) -> None:
    packed = lower(whisper, plan_at(whisper, 4, "stock"))
    written = exporter.write_model(exporter.traced_skeleton(whisper), packed, tmp_path)
    assert not any(name.startswith(("bitvox", "quantized")) for name in written.operators)
    report = exporter.prove(whisper, packed, written, clip(2), allow_float=False)
    assert report.parity.worst[1] < 1e-3
    (tied,) = (stored for stored in packed.sites if stored.site.tied)
    assert isinstance(tied.weight, PackedTensor) and tied.weight.bits == 8
    assert report.kernels[tied.site.name] == TIED_KERNEL
    assert set(report.kernels.values()) == {TIED_KERNEL, DELEGATE}
    assert written.model.read_bytes().count(tied.weight.signed_codes().tobytes()) == 1
