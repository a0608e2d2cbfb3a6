"""From a plan to the files of a bundle: pack, write, prove, judge, describe."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bitvox.benchmarks.metrics import count_words, identical_share
from bitvox.compiler.frontend.model import Site
from bitvox.compiler.lowering.packed import PackedModel, lower
from bitvox.compiler.passes.plan import QuantPlan, SitePlan
from bitvox.exporters.manifest import Agreement, FileEntry, Manifest
from bitvox.exporters.onnx.build import WrittenModel, operators_of, write_model
from bitvox.exporters.onnx.export import ExportReport, prove
from bitvox.exporters.runner import open_session
from bitvox.progress import Progress, logger
from bitvox.voice import Voice

_TESTED_WITH = ("onnxruntime", "torch", "transformers")


@dataclass(frozen=True)
class Written:
    """A bundle's folder, filled and proved."""

    manifest: Manifest
    report: ExportReport


def fill_bundle(
    voice: Voice, plan: QuantPlan, folder: Path, allow_float: bool, progress: Progress
) -> Written:
    """Write, run and check every file of a bundle into an empty `folder`.

    Raises:
        RequestError: A site meant for integers runs in float, or computes something else than the torch
            model.
    """
    progress("export", 0, 3)
    packed = lower(voice.model, plan)
    written = write_model(voice.skeleton, packed, folder)
    progress("export", 1, 3)
    report = _prove(voice, packed, written, allow_float)
    for name in report.float_sites:
        logger.warning(f"site '{name}' runs in float ({report.kernels[name]}), as --allow-float permits")
    progress("export", 2, 3)
    agreement = judge(voice, folder, plan.target)
    manifest = _describe(voice, plan, written, report.kernels, agreement)
    manifest.write(folder)
    progress("export", 3, 3)
    return Written(manifest, report)


def planned_bytes(voice: Voice, plan: QuantPlan) -> int:
    """Size of the bundle that `plan` leads to, by writing its model files to a scratch folder.

    Sizes depend on widths and forms only, so that ranges that are not calibrated yet may be left out.
    """
    with tempfile.TemporaryDirectory() as scratch:
        written = write_model(voice.skeleton, lower(voice.model, plan), Path(scratch))
        kernels = {site.name: _longest_kernel(site, plan.site(site.name)) for site in voice.model.sites}
        worst = Agreement(clips=9999, seconds=9999.123, word_error_rate=100.123456, identical=0.123456)
        manifest = _describe(voice, plan, written, kernels, worst)
        return sum(path.stat().st_size for path in (written.model, written.data)) + len(
            manifest.to_json().encode()
        )


def judge(voice: Voice, folder: Path, target: str) -> Agreement | None:
    """Agreement with full precision on the clips held out of calibration; None where there are none."""
    if not voice.judging:
        return None
    session, processor = open_session(target, folder, num_threads=1), voice.model.processor
    full = [voice.model.transcribe(clip.samples) for clip in voice.judging]
    ours = [processor.decode(session.run(processor.features(clip.samples))) for clip in voice.judging]
    counts = count_words(full, ours)
    return Agreement(
        clips=len(full),
        seconds=round(sum(clip.seconds for clip in voice.judging), 3),
        word_error_rate=round(100 * int(counts.errors.sum()) / max(int(counts.length.sum()), 1), 6),
        identical=round(identical_share(full, ours), 6),
    )


def _prove(voice: Voice, packed: PackedModel, written: WrittenModel, allow_float: bool) -> ExportReport:
    # The shortest held-out clip: parity keeps the input and output of every site in memory.
    clip = min(voice.judging or voice.calibration, key=lambda clip: clip.seconds)
    return prove(voice.model, packed, written, clip.samples, allow_float)


def _describe(
    voice: Voice,
    plan: QuantPlan,
    written: WrittenModel,
    kernels: Mapping[str, str],
    agreement: Agreement | None,
) -> Manifest:
    model = voice.model
    return Manifest(
        bitvox=version("bitvox"),
        target=plan.target,
        source=model.source,
        fingerprint=model.fingerprint,
        architecture=model.architecture,
        family=model.family,
        licence=model.licence,
        processor=model.processor,
        plan=Manifest.plan_document(plan),
        files={path.name: FileEntry.of(path) for path in (written.model, written.data)},
        operators=operators_of(written.model),
        tested_with={name: version(name) for name in _TESTED_WITH},
        audit=dict(kernels),
        agreement=agreement,
    )


def _longest_kernel(site: Site, plan: SitePlan) -> str:
    """The longest name that the audit can report for a site of this form."""
    if plan.bits is None or plan.activations == "float":
        return "MatMulNBits" if site.operator == "linear" else "Conv"
    return "DynamicQuantizeMatMul" if site.operator == "linear" else "QLinearConv"
