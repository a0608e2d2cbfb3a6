"""Methods at equal true bytes on AN4: every allocation with every rounding that it goes with.

    python -m bitvox.benchmarks.experiments.head_to_head

On the dev speakers, which methods may be chosen by; `--split test` is for once, when they have been. Every
budget is what a model of that many bits a weight takes in the files of its bundle. What is judged is the
torch model that bundles are compared with, activations ranged at each call in every row. Rows that are
finished are kept, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, Utterance, clusters
from bitvox.benchmarks.experiments.command import results_file, run
from bitvox.benchmarks.experiments.ladder import Ladder, measure_ladder
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import (
    REPOSITORY,
    Cell,
    Document,
    Errors,
    Notebook,
    Rate,
    Schema,
    cell_key,
)
from bitvox.benchmarks.experiments.speech import AN4, described, draw_clips, gather, read_split, speech_folder
from bitvox.benchmarks.experiments.unit_calibration import calibrate_by_unit
from bitvox.compiler.frontend.audio import read_clip
from bitvox.compiler.lowering.rounding import round_sites
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.bytes import average_bits
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.errors import RequestError
from bitvox.planning import allocated_plan, byte_costs, plan_for
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest, Order
from bitvox.store import FileStore, default_store
from bitvox.voice import Voice, read_voice

RESULTS = REPOSITORY / "benchmarks" / "results"
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
    split: Literal["dev", "test"] = "dev"
    bits: tuple[float, ...] = BITS


class HeadRow(Cell):
    """One method at one budget.

    Attributes:
        method: As `bitvox compile` takes it, or `full precision`; its options follow.
        bits: Average whose bytes are the budget.
        bytes: Of the bundle, sized by its files.
        words: Word errors; `difference`: their rate minus that of full precision, in points.
        divergence: KL(full precision || row), mean over frames.
        texts: What was written of each recording, for paired comparisons.
    """

    method: str
    order: str | None = None
    calibration: str | None = None
    rounding: str | None = None
    effort: str | None = None
    bits: float | None = None
    budget: int | None = None
    unreachable: str | None = None
    bytes: int = 0
    average_bits: float = 32.0
    widths: dict[str, int] = Field(default_factory=dict)
    plan: str = ""
    words: Errors
    difference: Rate
    divergence: float
    texts: tuple[str, ...]


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


class HeadDocument(Document[HeadRow, Comparison]):
    """`head_to_head_dev.json` and `head_to_head_test.json`."""


def head_to_head(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> HeadDocument:
    """Measure every row that the file does not have."""
    with tempfile.TemporaryDirectory() as scratch:
        audio = gather(setting.calibration, Path(scratch) / "clips")
        base = CompileRequest(setting.model, audio=audio, activations="dynamic", seed=SEED)
        store = default_store()
        judge = _Judge(read_voice(base, store, no_progress), setting.judged, store)
        data = {
            AN4: f"{setting.split}: {described(setting.judged)}",
            "calibration": f"{AN4} train: {len(setting.calibration)} clips drawn by seed, a quarter left out",
        }
        fingerprint = judge.voice.model.fingerprint
        found = provenance("head_to_head", arguments, setting.model, fingerprint, data)
        notebook = Notebook(out, HeadDocument, f"head_to_head_{setting.split}", found)
        widest = plan_for(judge.voice, replace(base, budget=1 << 40), store, no_progress)
        ladder = measure_ladder(judge.voice, widest)
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
                notebook.add(judge.row(key, bits, request))
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


class _Judge:
    """One process's model, voice and judged clips."""

    def __init__(self, voice: Voice, judged: Dataset, store: FileStore) -> None:
        self.voice, self.store, self.judged = voice, store, judged
        rate = voice.model.processor.sampling_rate
        clips = [read_clip(utterance.path, rate).samples for utterance in judged.utterances]
        self.inputs = [voice.model.inputs(samples) for samples in clips]
        self.expected = self._logits(voice.model.module)
        self.said = [utterance.text or "" for utterance in judged.utterances]
        self.speakers, _ = clusters(judged.utterances)
        self.full = [voice.model.processor.decode(one.numpy()) for one in self.expected]

    def budget(self, base: CompileRequest, ladder: Ladder, bits: float) -> int:
        """Bytes of the bundle of one width, or as far between two as `bits` is."""
        if not bits.is_integer():
            return ladder.at_average(bits)[0]
        uniform = replace(base, method="uniform", budget=ladder.only(int(bits)))
        return allocated_plan(self.voice, uniform, self.store, no_progress).total_bytes

    def row(self, key: str, bits: float | None, request: CompileRequest | None) -> HeadRow:
        """A finished row; without a request, that of full precision."""
        if request is None:
            return self._scored(self.voice.model.module, key=key, method="full precision")
        asked = _asked(request) | {"bits": bits, "budget": request.budget}
        try:
            plan = self._plan(request)
        except RequestError as error:
            return self._scored(self.voice.model.module, key=key, unreachable=str(error), **asked)
        context = self._context(plan)
        module = quantise_module(self.voice.model, plan, round_sites(context, plan, self.store))
        return self._scored(
            module,
            key=key,
            bytes=plan.total_bytes,
            average_bits=round(average_bits(self.voice.model, plan), 4),
            widths=dict(sorted(Counter(str(entry.bits or "float") for entry in plan.sites).items())),
            plan=plan.method,
            **asked,
        )

    def _plan(self, request: CompileRequest) -> QuantPlan:
        plan = allocated_plan(self.voice, request, self.store, no_progress)
        if request.calibration == "min-max":  # which leaves steps alone, and nothing else is calibrated
            return plan
        return calibrate_by_unit(self._context(plan), plan, request.calibration, request.seed, self.store)

    def _context(self, plan: QuantPlan) -> PassContext:
        costs = byte_costs(self.voice, plan.storage, plan.kernels)
        return PassContext(self.voice.model, self.voice.samples, costs)

    @torch.inference_mode()
    def _logits(self, module: torch.nn.Module) -> list[Tensor]:
        return [module(*inputs)[0] for inputs in self.inputs]

    def _scored(self, module: torch.nn.Module, **fields: object) -> HeadRow:
        logits = self._logits(module)
        texts = tuple(self.voice.model.processor.decode(one.numpy()) for one in logits)
        ours, full = metrics.count_words(self.said, texts), metrics.count_words(self.said, self.full)
        return HeadRow.model_validate(
            {
                "commit": commit(),
                "words": Errors.of(metrics.error_rate(ours, self.speakers)),
                "difference": Rate.of(metrics.rate_difference(ours, full, self.speakers)),
                "divergence": round(_divergence(logits, self.expected), 9),
                "texts": texts,
                **fields,
            }
        )


def _divergence(logits: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    total, frames = 0.0, 0
    for found, wanted in zip(logits, expected, strict=True):
        ours, theirs = (functional.log_softmax(one.double(), dim=-1) for one in (found, wanted))
        total += float(functional.kl_div(ours, theirs, reduction="sum", log_target=True))
        frames += found.shape[0]
    return total / frames


def _asked(request: CompileRequest) -> dict[str, object]:
    return {
        "method": request.method,
        "order": request.order if request.method == "myqasr" else None,
        "calibration": request.calibration,
        "rounding": request.chosen_rounding,
        "effort": request.effort if request.method == "auto" else None,
    }


def _comparisons(rows: Sequence[HeadRow], judged: Dataset) -> Iterator[Comparison]:
    """At each budget that has both."""
    speakers, _ = clusters(judged.utterances)
    said = [utterance.text or "" for utterance in judged.utterances]
    full = metrics.count_words(said, next(row.texts for row in rows if row.bits is None))
    for bits in sorted({row.bits for row in rows if row.bits is not None}):
        here = [row for row in rows if row.bits == bits and not row.unreachable]
        ours = [row for row in here if (row.method, row.rounding, row.effort) == ("auto", "gptq", "normal")]
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


def main() -> None:
    """Command line of the experiment."""
    parser = argparse.ArgumentParser(prog="head_to_head", description=__doc__)
    parser.add_argument("--out", type=Path, help="results file")
    parser.add_argument("--model", default="reference-ctc", help="checkpoint, as `bitvox compile` takes it")
    parser.add_argument("--split", choices=("dev", "test"), default="dev", help="speakers to judge on")
    options = parser.parse_args()

    def work(progress: Progress) -> None:
        split: Literal["dev", "test"] = options.split
        default = RESULTS / f"head_to_head_{split}.json"
        parser.set_defaults(split=split)
        out = results_file(parser, options, default)
        speech = speech_folder()
        calibration = draw_clips(read_split(speech, AN4, "train"), _CALIBRATION_CLIPS, SEED)
        judged = read_split(speech, AN4, split)
        torch.set_num_threads(1)
        head_to_head(out, Setting(options.model, tuple(calibration), judged, split), progress, sys.argv[1:])

    sys.exit(run(work))


if __name__ == "__main__":
    main()
