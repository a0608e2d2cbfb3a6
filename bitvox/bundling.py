"""From a plan to the files of a bundle: pack, write, prove, judge, describe."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bitvox.benchmarks.metrics import count_labels, count_words, identical_share
from bitvox.compiler.frontend.threads import side_by_side, single_threaded
from bitvox.compiler.lowering.packed import lower
from bitvox.compiler.lowering.rounding import round_sites
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import RoundedSite
from bitvox.exporters.manifest import Agreement, FileEntry, Manifest, short_digest
from bitvox.exporters.proof import ExportReport
from bitvox.exporters.runner import open_session
from bitvox.exporters.targets import WrittenModel, runtime
from bitvox.progress import Progress, logger
from bitvox.store import FileStore
from bitvox.voice import Voice


@dataclass(frozen=True)
class Written:
    """A bundle's folder, filled and proved."""

    manifest: Manifest
    report: ExportReport


def fill_bundle(
    voice: Voice, plan: QuantPlan, folder: Path, allow_float: bool, store: FileStore, progress: Progress
) -> Written:
    """Write, run and check every file of a bundle into an empty `folder`.

    Raises:
        RequestError: A site meant for integers runs in float, or computes something else than the torch
            model.
    """
    rounded = _rounded(voice, plan, store, progress)
    progress("export", 0, 3)
    packed = lower(voice.model, plan, rounded)
    written = voice.exporter.write_model(voice.skeleton, packed, folder)
    progress("export", 1, 3)
    # The shortest held-out clip: parity keeps the input and output of every site in memory.
    clip = min(voice.judging or voice.calibration, key=lambda clip: clip.seconds)
    report = voice.exporter.prove(voice.model, packed, written, clip.samples, allow_float)
    for name in report.float_sites:
        logger.warning(f"site '{name}' runs in float ({report.kernels[name]}), as --allow-float permits")
    progress("export", 2, 3)
    agreement = judge(voice, folder, plan.target)
    manifest = _describe(voice, plan, written, report.kernels, agreement)
    manifest.write(folder)
    progress("export", 3, 3)
    return Written(manifest, report)


def _rounded(
    voice: Voice, plan: QuantPlan, store: FileStore, progress: Progress
) -> Mapping[str, RoundedSite]:
    if all(entry.rounding == "nearest" for entry in plan.sites):
        return {}
    costs = voice.exporter.byte_costs(voice.model, voice.skeleton, plan.storage, plan.kernels)
    return round_sites(voice.context(costs, progress, store), plan, store)


def planned_bytes(voice: Voice, plan: QuantPlan) -> int:
    """Size of the bundle that `plan` leads to, by writing files of its size to a scratch folder.

    Sizes depend on widths and forms only, so that ranges that are not calibrated yet may be left out, and
    codes are those nearest whatever the plan says.
    """
    nearest = plan.replace(sites=tuple(entry.replace(rounding="nearest") for entry in plan.sites))
    with tempfile.TemporaryDirectory() as scratch:
        written = voice.exporter.size_model(voice.skeleton, lower(voice.model, nearest), Path(scratch))
        kernels = {site.name: voice.exporter.longest_kernel(site, plan) for site in voice.model.sites}
        worst = Agreement(clips=9999, seconds=9999.123, word_error_rate=100.123456, identical=0.123456)
        manifest = _describe(voice, plan, written, kernels, worst)
        return sum(path.stat().st_size for path in written.files) + len(manifest.to_json().encode())


def judge(voice: Voice, folder: Path, target: str) -> Agreement | None:
    """Agreement with full precision on the clips held out of calibration; None where there are none."""
    if not voice.judging:
        return None
    session, processor = open_session(target, folder, num_threads=1), voice.model.processor
    with single_threaded() as threads:  # near ties fall where they fall on any machine
        full = side_by_side(voice.model.transcribe, [clip.samples for clip in voice.judging], threads)
    ours = [processor.transcribe(session, clip.samples) for clip in voice.judging]
    counts = (count_labels if voice.model.family == "classifier" else count_words)(full, ours)
    return Agreement(
        clips=len(full),
        seconds=round(sum(clip.seconds for clip in voice.judging), 3),
        word_error_rate=round(100 * int(counts.errors.sum()) / max(int(counts.length.sum()), 1), 6),
        identical=round(identical_share(full, ours), 6),
    )


def _describe(
    voice: Voice,
    plan: QuantPlan,
    written: WrittenModel,
    kernels: Mapping[str, str],
    agreement: Agreement | None,
) -> Manifest:
    model = voice.model
    packages = (*runtime(plan.target, Path()).PACKAGES, "torch", "transformers")
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
        files={path.name: FileEntry.of(path) for path in written.files},
        operators=written.operators,
        tested_with={name: version(name) for name in packages},
        audit=dict(kernels),
        agreement=agreement,
        calibrated_on=tuple(short_digest(clip) for clip in voice.learnt_from),
        lengths=voice.exporter.length_seconds(model),
    )
