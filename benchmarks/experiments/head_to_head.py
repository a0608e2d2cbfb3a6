"""Methods at equal true bytes on AN4: every allocation with every rounding that it goes with.

    bitvox reproduce head-to-head

On the dev speakers, which methods may be chosen by; `--split test` is for once, when they have been. Every
budget is what a model of that many bits a weight takes in the files of its bundle. What is judged is the
torch model that bundles are compared with, activations ranged at each call in every row. Rows that are
finished are kept, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, Utterance, clusters
from bitvox.benchmarks.experiments.experiment import Options, Split
from bitvox.benchmarks.experiments.judge import Judge, JudgedRow
from bitvox.benchmarks.experiments.provenance import provenance
from bitvox.benchmarks.experiments.results import Document, Notebook, Rate, Schema, cell_key
from bitvox.benchmarks.experiments.speech import (
    AN4,
    described,
    draw_clips,
    gather,
    read_split,
    speech_folder,
    stratified,
)
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest, Order
from bitvox.store import default_store
from bitvox.voice import read_voice

BITS = (2.2, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
SEED = 0

_ORDERS: tuple[Order, ...] = ("ascending", "descending")

# A quarter is kept to judge agreement with; 32 calibrate.
_CALIBRATION_CLIPS = 42


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        model: Checkpoint.
        calibration: Recordings that every row is calibrated with.
        judged: What rows are judged on.
        split: Whose speakers those are.
        bits: Averages whose bytes are the budgets, in the order in which they are measured.
    """

    model: str
    calibration: tuple[Utterance, ...]
    judged: Dataset
    split: Split = "dev"
    bits: tuple[float, ...] = BITS


class Comparison(Schema):
    """The default method against myQASR with rounding to nearest, at one budget.

    Attributes:
        best: Order and calibration of the myQASR row with the fewest errors here: chosen in its favour.
        difference: Word error rate of `auto` minus its, in points, paired over speakers.
        share: WER increase of `auto` over full precision as a share of its; None where it has none.
    """

    bits: float
    best: str
    difference: Rate
    share: float | None


class HeadDocument(Document[JudgedRow, Comparison]):
    """`head_to_head_dev.json` and `head_to_head_test.json`."""


def head_to_head(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> HeadDocument:
    """Measure every row that the file does not have."""
    with tempfile.TemporaryDirectory() as scratch:
        audio = gather(setting.calibration, Path(scratch) / "clips")
        base = CompileRequest(setting.model, audio=audio, activations="dynamic", seed=SEED)
        store = default_store()
        judge = Judge(read_voice(base, store, no_progress), setting.judged, store)
        data = {
            AN4: f"{setting.split}: {described(setting.judged)}",
            "calibration": f"{AN4} train: {len(setting.calibration)} clips drawn by seed, a quarter left out",
        }
        fingerprint = judge.voice.model.fingerprint
        found = provenance("head-to-head", arguments, setting.model, fingerprint, data)
        notebook = Notebook(out, HeadDocument, f"head_to_head_{setting.split}", found)
        ladder = judge.ladder(base)
        requests: list[tuple[float | None, CompileRequest | None]] = [(None, None)]
        gptq = replace(base, rounding="gptq")
        budgets = [
            (judge.budget(base, ladder, average), judge.budget(gptq, ladder, average))
            for average in setting.bits
        ]
        # Method by method: a method's budgets share what it measures.
        for same in zip(*(_methods(base, *pair) for pair in budgets), strict=True):
            requests += zip(setting.bits, same, strict=True)
        keys = [_key(setting, fingerprint, request) for _, request in requests]
        notebook.keep(keys)
        for number, (key, (bits, request)) in enumerate(zip(keys, requests, strict=True)):
            progress("head to head", number, len(keys))
            if notebook.get(key) is None:
                notebook.add(judge.row(JudgedRow, key, bits, request))
        progress("head to head", len(keys), len(keys))
        rows = [row for key in keys if (row := notebook.get(key)) is not None]
        document = notebook.write(keys, tuple(_comparisons(rows, setting.judged)))
    assert isinstance(document, HeadDocument)
    return document


def _methods(base: CompileRequest, budget: int, named: int) -> Iterator[CompileRequest]:
    """What is compared at one budget; `named` has room for a manifest that names a rounding, site by site."""
    base = replace(base, budget=budget)
    yield replace(base, method="uniform")
    yield replace(base, method="auto")
    for order in _ORDERS:
        yield replace(base, method="myqasr", order=order)
    for order in _ORDERS:
        yield replace(base, method="myqasr", order=order, rounding="gptq")
    yield replace(base, method="uniform", rounding="gptq", budget=named)
    for order in _ORDERS:
        yield replace(base, method="myqasr", order=order, calibration="cosine")
    yield replace(base, method="auto", rounding="nearest")
    yield replace(base, method="auto", effort="quick")
    yield replace(base, method="auto", effort="max")


def _key(setting: Setting, fingerprint: str, request: CompileRequest | None) -> str:
    return cell_key(
        fingerprint=fingerprint,
        request=request and replace(request, audio=None),
        judged=[utterance.path.name for utterance in setting.judged.utterances],
        calibration=[utterance.path.name for utterance in setting.calibration],
    )


def _comparisons(rows: Sequence[JudgedRow], judged: Dataset) -> Iterator[Comparison]:
    """At each budget that has both."""
    speakers, _ = clusters(judged.utterances)
    said = [utterance.text or "" for utterance in judged.utterances]
    full = metrics.count_words(said, next(row.texts for row in rows if row.bits is None))
    for bits in sorted({row.bits for row in rows if row.bits is not None}):
        here = [row for row in rows if row.bits == bits and not row.unreachable]
        usual = ("auto", "compensated", "normal")
        ours = [row for row in here if (row.method, row.rounding, row.effort) == usual]
        theirs = [row for row in here if (row.method, row.rounding) == ("myqasr", "nearest")]
        if not ours or not theirs:
            continue
        best = min(theirs, key=lambda row: row.words.rate.percent or 0.0)
        one, other = (metrics.count_words(said, row.texts) for row in (ours[0], best))
        lost, gained = (int(counts.errors.sum() - full.errors.sum()) for counts in (other, one))
        yield Comparison(
            bits=bits,
            best=f"{best.order}, {best.calibration}",
            difference=Rate.of(metrics.rate_difference(one, other, speakers)),
            share=round(gained / lost, 4) if lost > 0 else None,
        )


def measure(options: Options, progress: Progress) -> HeadDocument:
    """`bitvox reproduce head-to-head`; a limit is one on the judged recordings."""
    speech = speech_folder()
    calibration = draw_clips(read_split(speech, AN4, "train"), _CALIBRATION_CLIPS, SEED)
    judged = stratified(read_split(speech, AN4, options.split), options.limit, SEED)
    torch.set_num_threads(1)
    setting = Setting(options.model, tuple(calibration), judged, options.split)
    return head_to_head(options.out, setting, progress, options.arguments)
