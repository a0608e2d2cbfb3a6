"""Every test speaker of AN4, five budgets: is each bundle under its budget, how does it hear that speaker?

    bitvox reproduce voices

A bundle is calibrated on three quarters of the speaker's recordings and judged on the others, which no pass
has seen.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.evaluate import EvalReport, evaluate
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.ladder import Ladder, measure_ladder
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Errors, Notebook, cell_key
from bitvox.benchmarks.experiments.speech import AN4, by_speaker, read_split, speech_folder
from bitvox.benchmarks.experiments.voice_rows import ClipText, PooledRow, VoiceRow, VoicesDocument, pooled
from bitvox.compile import sweep
from bitvox.compiler.frontend.audio import read_folder, split_clips
from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.effort import measurement
from bitvox.exporters.bundle import Bundle
from bitvox.planning import plan_for
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileReport, CompileRequest
from bitvox.store import default_store
from bitvox.voice import Voice, read_voice

AVERAGES = (2.2, 3.0, 4.0, 6.0, 8.0)

# Manifests differ by some hundred bytes from voice to voice: the number of digits of ranges and scores.
_MANIFEST_SLACK = 1000


@dataclass(frozen=True)
class _Compiled:
    """Bundles of one speaker, and the recordings on each side of the split."""

    folder: Path
    reports: tuple[CompileReport, ...]
    calibrated_on: int
    judged_on: Dataset


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        model: Checkpoint, as `bitvox compile` takes it.
        recordings: Test recordings of all speakers, each in a folder of its speaker.
        averages: Bits per weight that budgets are chosen for.
        limit: Most speakers, None for all.
    """

    model: str
    recordings: Dataset
    averages: tuple[float, ...] = AVERAGES
    limit: int | None = None

    @property
    def speakers(self) -> dict[str, list[Utterance]]:
        """Recordings by speaker."""
        found = by_speaker(self.recordings)
        return dict(list(found.items())[: self.limit])


class _Remembering:
    """The full-precision model, which writes the same text for the same samples every time."""

    def __init__(self, model: SpeechModel) -> None:
        self._model = model
        self._texts: dict[tuple[bytes, DecodingOptions | None], str] = {}

    def transcribe(self, samples: FloatArray, options: DecodingOptions | None = None) -> str:
        key = hashlib.sha256(samples.tobytes()).digest(), options
        if key not in self._texts:
            self._texts[key] = self._model.transcribe(samples, options)
        return self._texts[key]


def voices(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> VoicesDocument:
    """Measure every cell that the file does not have, then pool them."""
    first = next(iter(setting.speakers.values()))
    request = CompileRequest(model=setting.model, audio=first[0].path.parent, method="myqasr")
    voice = read_voice(request, default_store(), no_progress)
    ladder = _ladder(voice, request)
    data = {
        "judged on": f"{AN4} test, {len(setting.speakers)} speakers, a quarter of each speaker's recordings"
    }
    found = provenance("voices", arguments, setting.model, voice.model.fingerprint, data)
    notebook = Notebook(out, VoicesDocument, "voices", found)
    keys = {
        (speaker, wanted): _key(voice.model, clips, ladder, wanted)
        for speaker, clips in setting.speakers.items()
        for wanted in setting.averages
    }
    notebook.keep(keys.values())
    _fill(notebook, setting, ladder, keys, _Remembering(voice.model), progress)
    rows = [row for key in keys.values() if (row := notebook.get(key)) is not None]
    document = notebook.write(keys.values(), pooled(rows))
    assert isinstance(document, VoicesDocument)
    return document


def _fill(
    notebook: Notebook[VoiceRow, PooledRow],
    setting: Setting,
    ladder: Ladder,
    keys: Mapping[tuple[str, float], str],
    full_precision: _Remembering,
    progress: Progress,
) -> None:
    """Measure the missing cells, speaker by speaker."""
    done = sum(notebook.get(key) is not None for key in keys.values())
    progress("voices", done, len(keys))
    for speaker, clips in setting.speakers.items():
        missing = [wanted for wanted in setting.averages if notebook.get(keys[speaker, wanted]) is None]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            compiled = _compile(setting, clips, ladder, missing, Path(scratch))
            for wanted, report in zip(missing, compiled.reports, strict=True):
                key = keys[speaker, wanted]
                notebook.add(_measure(key, ladder, speaker, wanted, report, compiled, full_precision))
                done += 1
                progress("voices", done, len(keys))


def _ladder(voice: Voice, request: CompileRequest) -> Ladder:
    unlimited = replace(request, budget=1 << 40)
    return measure_ladder(voice, plan_for(voice, unlimited, default_store(), no_progress))


def budget_for(ladder: Ladder, average: float) -> int:
    """Bytes for an average width, in whole kilobytes: what a person would type."""
    size, _ = ladder.at_average(average)
    return -(-(size + _MANIFEST_SLACK) // 1000) * 1000


def _key(model: SpeechModel, clips: Sequence[Utterance], ladder: Ladder, average: float) -> str:
    recordings = [f"{clip.path.name} {clip.path.stat().st_size} {clip.text}" for clip in clips]
    budget = budget_for(ladder, average)
    return cell_key(fingerprint=model.fingerprint, recordings=recordings, budget=budget, average=average)


def _compile(
    setting: Setting, clips: Sequence[Utterance], ladder: Ladder, averages: Sequence[float], scratch: Path
) -> _Compiled:
    """The bundles of one speaker; its recordings are read, and the model loaded, once."""
    folder = clips[0].path.parent
    request = CompileRequest(model=setting.model, audio=folder, out=scratch, method="myqasr")
    reports = sweep(request, [budget_for(ladder, average) for average in averages]).all()
    processor = Bundle.open(reports[0].out).manifest.processor
    heard = read_folder(folder, processor.sampling_rate, processor.minimum_samples, lambda line: None)
    calibration, judging = split_clips(heard, request.clips, measurement(request).audio)
    held_out = {clip.path for clip in judging}
    judged_on = Dataset(folder, tuple(clip for clip in clips if clip.path in held_out))
    return _Compiled(folder, reports, len(calibration), judged_on)


def _measure(
    key: str,
    ladder: Ladder,
    speaker: str,
    wanted: float,
    report: CompileReport,
    compiled: _Compiled,
    full_precision: _Remembering,
) -> VoiceRow:
    found = evaluate(Bundle.open(report.out), compiled.judged_on, full_precision)
    assert found.scores.words and found.scores.characters and found.full_precision
    assert found.full_precision.words and report.budget is not None
    assert found.scores.words_on_silence is not None
    return VoiceRow(
        key=key,
        commit=commit(),
        **_commands(compiled, report),
        speaker=speaker,
        average_wanted=wanted,
        budget=report.budget,
        bytes=report.bytes,
        average_bits=report.average_bits,
        site_step=ladder.site_step,
        unit_step=ladder.unit_step,
        under_budget=report.bytes <= report.budget,
        tight=report.bytes >= report.budget - ladder.site_step,
        parity=report.parity,
        compile_seconds=report.seconds,
        calibrated_on=compiled.calibrated_on,
        judged_on=_texts(found),
        words=Errors.of(found.scores.words),
        characters=Errors.of(found.scores.characters),
        full_precision_words=Errors.of(found.full_precision.words),
        words_on_silence=found.scores.words_on_silence,
    )


def _commands(compiled: _Compiled, report: CompileReport) -> dict[str, str]:
    """The same cell by hand: SPEECH stands for the folder of recordings."""
    source = f"SPEECH/{AN4}/{compiled.folder.parent.name}/{compiled.folder.name}"
    model = report.plan.model
    return {
        "compile_command": f"bitvox compile {model} --audio {source} --budget {report.budget} "
        f"--method myqasr --target {report.plan.target} --out BUNDLE --json",
        "eval_command": "bitvox eval BUNDLE --data HELDOUT.csv --json",
    }


def _texts(found: EvalReport) -> tuple[ClipText, ...]:
    return tuple(
        ClipText(
            recording=Path(entry.path).stem,
            reference=entry.reference or "",
            bundle=entry.bundle,
            full_precision=entry.full_precision or "",
        )
        for entry in found.transcripts
    )


def measure(options: Options, progress: Progress) -> VoicesDocument:
    """`bitvox reproduce voices`; a limit is one on speakers."""
    recordings = read_split(speech_folder(), AN4, options.split)
    return voices(
        options.out, Setting(options.model, recordings, limit=options.limit), progress, options.arguments
    )
