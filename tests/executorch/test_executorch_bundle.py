"""Bundles for ExecuTorch on a tiny model: compiled, run, and broken in every way a user can break one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from operator_libraries import unbuilt_executorch

import bitvox
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.lowering.packed import PackedTensor, lower
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.exporters.runner import open_session
from bitvox.runtime_kernels.adapters.executorch import library

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")
if missing := unbuilt_executorch():
    pytest.skip(missing, allow_module_level=True)

from executorch.exir._serialize._program import serialize_pte_binary
from executorch.exir.schema import Double, Int, String

from bitvox.exporters.executorch import exporter, session
from bitvox.exporters.executorch.audit import DELEGATE, kernels_reached
from bitvox.exporters.executorch.lengths import LENGTH_SECONDS, MARGIN_SECONDS, even_windows, windows
from bitvox.exporters.executorch.program import PackedConstant, Program, kernel_calls
from bitvox.exporters.executorch.sharing import shared
from bitvox.exporters.executorch.skeleton import shipped_program, usual_forms
from bitvox.exporters.onnx.resident import resident_weight
from bitvox.progress import no_progress
from bitvox.store import default_store
from bitvox.voice import read_voice
from support import noise_clips
from tiny_families import tiny_family

MODEL = "model.pte"


def request(checkpoint: Path, voice: Path, out: Path, budget: int) -> bitvox.CompileRequest:
    return bitvox.CompileRequest(str(checkpoint), voice, budget, out, target="executorch", method="myqasr")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> SpeechModel:
    return bitvox.load(str(checkpoint))


@pytest.fixture(scope="module")
def compiled(
    checkpoint: Path, voice: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> bitvox.CompileReport:
    """A bundle whose budget takes bits away from some sites."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITVOX_CACHE", str(shared_cache))
        widest = request(checkpoint, voice, tmp_path_factory.mktemp("bundle") / "widest", 1_000_000)
        largest = bitvox.compile_bundle(widest)
        smaller = dataclasses.replace(
            widest, budget=largest.bytes - 6000, out=tmp_path_factory.mktemp("bundle") / "smaller"
        )
        return bitvox.compile_bundle(smaller)


@pytest.fixture
def copy(compiled: bitvox.CompileReport, tmp_path: Path) -> Path:
    """The bundle, to be broken."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in compiled.out.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_bundle_is_under_its_budget_and_computes_what_was_planned(
    compiled: bitvox.CompileReport, model: SpeechModel
) -> None:
    on_disk = sum(path.stat().st_size for path in compiled.out.iterdir())
    assert compiled.budget is not None and compiled.bytes == on_disk <= compiled.budget
    assert compiled.plan.kernels == "packed" and 2 <= compiled.average_bits < 8
    assert compiled.parity < 1e-3
    first, *others = (compiled.kernels[site.name] for site in model.sites)
    assert first == "bitvox::wave_conv1d"  # in float, by policy
    assert others == [f"bitvox::{site.operator}" for site in model.sites[1:]]
    assert bitvox.verify(compiled.out) == []


def test_packed_weights_are_in_the_file_once(compiled: bitvox.CompileReport, model: SpeechModel) -> None:
    content = (compiled.out / MODEL).read_bytes()
    for stored in lower(model, compiled.plan).sites:
        if isinstance(stored.weight, PackedTensor):
            weight = resident_weight(stored.weight).tobytes()
            assert content.count(weight) == 1
            assert content.index(weight) % 64 == 0
    manifest = bitvox.Bundle.open(compiled.out).manifest
    names = ("linear", "conv1d", "wave_conv1d", "instance_norm", "layer_norm", "attention")
    assert {*(f"bitvox::{name}.out" for name in names), DELEGATE} <= set(manifest.operators)
    replaced = {f"aten::{name}.out" for name in ("native_group_norm", "native_layer_norm", "expand_copy")}
    assert not replaced & set(manifest.operators)
    assert set(manifest.operators) == set(Program.read(content).operators)
    assert manifest.lengths == LENGTH_SECONDS


def test_equal_weights_are_stored_once(
    compiled: bitvox.CompileReport, model: SpeechModel, checkpoint: Path, voice: Path, tmp_path: Path
) -> None:
    request_again = request(checkpoint, voice, tmp_path, 1_000_000)
    skeleton = read_voice(request_again, default_store(), no_progress).skeleton
    forms = usual_forms(model)
    constants = {
        index: PackedConstant(resident_weight(stored.weight).tobytes())
        for index, stored in enumerate(lower(model, compiled.plan).sites)
        if isinstance(stored.weight, PackedTensor)
    }
    names = [site.name.rpartition(".")[2] for site in model.sites]
    query, key = names.index("q_proj"), names.index("k_proj")
    constants[key] = constants[query]
    filled = shipped_program(skeleton, forms).filled(constants)
    assert filled.to_bytes().count(constants[query].weight) == 1
    assert set(kernels_reached(filled, forms, constants).values()) == set(compiled.kernels.values())


def test_equal_constants_are_in_a_method_once(compiled: bitvox.CompileReport) -> None:
    for plan in Program.read((compiled.out / MODEL).read_bytes()).file.program.execution_plan:
        calls = [call.args for _, call in kernel_calls(plan)]
        written = {arguments[-1] for arguments in calls}
        constants = [
            repr(value.val)
            for position, value in enumerate(plan.values)
            if isinstance(value.val, Int | Double | String) and position not in written
        ]
        assert len(constants) == len(set(constants))


def test_a_shared_description_is_smaller_and_says_the_same(compiled: bitvox.CompileReport) -> None:
    file = Program.read((compiled.out / MODEL).read_bytes()).file
    repeated = bytes(serialize_pte_binary(file, extract_delegate_segments=True))
    smaller = shared(repeated)
    assert len(smaller) < 0.75 * len(repeated)
    assert Program.read(smaller).file == Program.read(repeated).file


def test_logits_are_those_of_the_quantised_model_at_any_length(
    compiled: bitvox.CompileReport, model: SpeechModel
) -> None:
    runner = bitvox.open_runner(bitvox.Bundle.open(compiled.out))
    quantised = quantise_module(model, compiled.plan)
    limit = LENGTH_SECONDS[0] * 16_000
    for samples in (model.processor.minimum_samples, 4001, limit, limit + 1):
        clip = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
        with torch.inference_mode():
            expected = quantised(torch.from_numpy(model.processor.features(clip))[None])[0].numpy()
        found = runner.logits(clip)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 1e-3 * np.abs(expected).mean()


def test_a_clip_longer_than_any_method_goes_in_windows(
    compiled: bitvox.CompileReport, model: SpeechModel
) -> None:
    processor = model.processor
    loaded = open_session("executorch", compiled.out, 1)
    assert isinstance(loaded, session.ExecutorchSession)
    short = dataclasses.replace(loaded, methods={length: loaded.methods[length] for length in [64_000]})
    features = np.random.default_rng(0).standard_normal(150_000).astype(np.float32)
    found = short.run(features)
    assert len(found) == (features.size - processor.minimum_samples) // processor.samples_per_frame + 1
    cut = list(
        windows(
            features.size,
            64_000,
            MARGIN_SECONDS * 16_000,
            processor.minimum_samples,
            processor.samples_per_frame,
        )
    )
    assert len(cut) > 2
    second = cut[1]
    alone = loaded.run(features[second.start : second.stop])[second.first : second.last]
    first = cut[0].last - cut[0].first
    np.testing.assert_array_equal(found[first : first + len(alone)], alone)


def test_a_long_clip_of_a_classifier_is_the_mean_of_its_frames(tmp_path: Path) -> None:
    """In steady noise attention sees in a window what it sees in the whole clip."""
    classifier = tiny_family("wav2vec2-keywords")
    exporter.export_full_precision(classifier, tmp_path)
    loaded = open_session("executorch", tmp_path, 1)
    assert isinstance(loaded, session.ExecutorchSession) and loaded.pools
    processor = classifier.processor
    short = dataclasses.replace(loaded, methods={length: loaded.methods[length] for length in [64_000]})
    features = np.random.default_rng(0).standard_normal(150_000).astype(np.float32)
    cut = even_windows(features.size, 64_000, processor.minimum_samples, processor.samples_per_frame)
    parts, frames = zip(
        *((loaded.run(features[one.start : one.stop]), one.last - one.first) for one in cut), strict=True
    )
    assert len(parts) == 3
    found = short.run(features)
    np.testing.assert_allclose(found, np.average(parts, axis=0, weights=frames), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, loaded.run(features), atol=0.02)


def test_a_program_is_the_same_bytes_again(
    checkpoint: Path, voice: Path, compiled: bitvox.CompileReport, tmp_path: Path
) -> None:
    assert compiled.budget is not None
    again = bitvox.compile_bundle(request(checkpoint, voice, tmp_path / "again", compiled.budget))
    assert (again.out / MODEL).read_bytes() == (compiled.out / MODEL).read_bytes()


def test_full_precision_is_the_model(model: SpeechModel, tmp_path: Path) -> None:
    exporter.export_full_precision(model, tmp_path)
    loaded = open_session("executorch", tmp_path, 1)
    (clip, *_) = noise_clips()
    features = model.processor.features(clip)
    np.testing.assert_allclose(loaded.run(features), model.logits(clip), atol=1e-4)


def test_a_flipped_byte_is_named(copy: Path) -> None:
    path = copy / MODEL
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(bitvox.InputError, match=r"model\.pte: damaged"):
        bitvox.open_runner(bitvox.Bundle.open(copy))
    assert any("damaged" in fault for fault in bitvox.verify(copy))


@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_a_cut_program_is_refused_in_one_line(
    capfd: pytest.CaptureFixture[str], copy: Path, keep: float
) -> None:
    path = copy / MODEL
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(bitvox.InputError, match=r"model\.pte: ExecuTorch refuses it") as caught:
        open_session("executorch", copy, 1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / MODEL).unlink()
    with pytest.raises(bitvox.InputError, match=r"model\.pte: missing"):
        open_session("executorch", copy, 1)


def test_a_program_of_another_kind_is_refused(copy: Path) -> None:
    program = Program.read((copy / MODEL).read_bytes())
    for plan in program.file.program.execution_plan:
        plan.name = plan.name.replace("forward_", "run_")
    (copy / MODEL).write_bytes(program.to_bytes())
    with pytest.raises(bitvox.InputError, match=r"model\.pte: has methods"):
        open_session("executorch", copy, 1)


def test_a_missing_library_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / library.LIBRARY_NAME)
    library.load_library.cache_clear()
    try:
        with pytest.raises(bitvox.InputError, match=rf"{library.LIBRARY_NAME}: missing"):
            open_session("executorch", copy, 1)
    finally:
        library.load_library.cache_clear()


def test_clips_that_no_model_takes_are_refused(compiled: bitvox.CompileReport) -> None:
    runner = bitvox.open_runner(bitvox.Bundle.open(compiled.out))
    with pytest.raises(bitvox.InputError, match="too short"):
        runner.logits(np.zeros(10, np.float32))


def test_without_executorch_one_line_says_what_to_install(compiled: bitvox.CompileReport) -> None:
    code = (
        "import sys; sys.modules['executorch'] = None\n"
        "from bitvox.cli import main\n"
        f"sys.argv = ['bitvox', 'verify', {str(compiled.out)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "pip install 'bitvox[executorch]'" in done.stderr
