"""Methods at equal true bytes on AN4: every allocation with every rounding that it goes with.

    bitvox reproduce head-to-head
    bitvox reproduce head-to-head-minutes
    bitvox reproduce head-to-head-offsets

The second has ten minutes of audio to calibrate from where the first has a minute and a half; the third is
the second, judged on every recording at eight offsets, which finds smaller differences. On the dev speakers,
which methods may be chosen by; `--split test` is for once, when they have been. Every budget is what a model
of that many bits a weight takes in the files of its bundle. What is judged is the torch model that bundles
are compared with, activations ranged at each call in every row. Rows that are finished are kept, so that the
same command goes on where it stopped.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, Utterance, clusters
from bitvox.benchmarks.experiments.draws import PERCENT, Values, mean_rate
from bitvox.benchmarks.experiments.experiment import Options, Split
from bitvox.benchmarks.experiments.judge import Judge, JudgedRow
from bitvox.benchmarks.experiments.offsets import at_offsets
from bitvox.benchmarks.experiments.other_tools import TOOLS, Tool
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
from bitvox.compiler.frontend.audio import Clip
from bitvox.compiler.passes.plan import Calibration
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest, Order
from bitvox.store import FileStore, default_store
from bitvox.voice import read_voice

BITS = (2.5, 3.0, 3.5, 4.0, 2.2, 5.0, 6.0, 8.0)
LOW_BITS = (2.5, 3.0, 3.5, 4.0, 2.2)

# At which the goal is an increase of half of myQASR's.
HALVED = (3.5, 3.0, 2.5)

# Just below three quarters of the bytes at 3.5 bits.
_THREE_QUARTERS = 2.53

# Of a recording, over one frame of 20 ms at 16 kHz.
OFFSETS, _FRAME, _RATE = 8, 320, 16_000

DRAWS = 5
SEED = 0

_ORDERS: tuple[Order, ...] = ("ascending", "descending")
_CALIBRATIONS: tuple[Calibration, ...] = ("cosine", "min-max")

# A quarter is kept to judge agreement with: 32 calibrate, or some 220.
_CALIBRATION_CLIPS, _MINUTES_CLIPS = 42, 300


@dataclass(frozen=True)
class Setting:
    """What the experiment runs on.

    Attributes:
        model: Checkpoint.
        draws: Recordings that rows are calibrated with; all with the first, the default method and myQASR
            with the others too.
        judged: What rows are judged on.
        split: Whose speakers those are.
        bits: Averages whose bytes are the budgets, in the order in which they are measured.
        own_bits: The same for the default method alone.
        tools: Other tools, each at the bytes that it takes.
        whole: Whether there are rows beside those of the default method and of myQASR.
        name: Of the experiment.
    """

    model: str
    draws: tuple[tuple[Utterance, ...], ...]
    judged: Dataset
    split: Split = "dev"
    bits: tuple[float, ...] = BITS
    own_bits: tuple[float, ...] = ()
    tools: tuple[Tool, ...] = TOOLS
    whole: bool = True
    name: str = "head-to-head"


class HeadRow(JudgedRow):
    """One method at one budget.

    Attributes:
        tier: Of the quantiser; None where a tool brings its own.
        draw: Number of the calibration clips' draw.
    """

    tier: str | None = None
    draw: int = 0


class Comparison(Schema):
    """The default method against myQASR with rounding to nearest, at one budget.

    Attributes:
        best: Order and calibration of the myQASR rows with the fewest errors here: chosen in its favour.
        draws: Calibration draws that both have.
        increase: WER of `auto` minus that of full precision, in points; `theirs`: that of myQASR.
        difference: WER of `auto` minus that of myQASR.
        half: Increase of `auto` minus half of that of myQASR.
        share: The one as a share of the other; None where myQASR has none.
        bytes_share: Bytes of the smallest budget at which `auto` makes no more errors than myQASR here, on
            average over the same draws, as a share of myQASR's; None where there is none.
    """

    bits: float
    best: str
    draws: int
    increase: Rate
    theirs: Rate
    difference: Rate
    half: Rate
    share: float | None
    bytes_share: float | None


class HeadDocument(Document[HeadRow, Comparison]):
    """`head_to_head_dev.json`, `head_to_head_test.json`, and the same of `head_to_head_minutes`."""


@dataclass(frozen=True)
class _Cell:
    """One row to be: a request, a tool, or full precision."""

    bits: float | None = None
    request: CompileRequest | None = None
    tool: Tool | None = None
    draw: int = 0

    @property
    def said(self) -> dict[str, object]:
        """What its key is made of, beside the clips."""
        request = self.request and replace(self.request, audio=None)
        return {"request": request, "tool": self.tool and self.tool.name}


def head_to_head(
    out: Path, setting: Setting, progress: Progress = no_progress, arguments: Sequence[str] = ()
) -> HeadDocument:
    """Measure every row that the file does not have."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = CompileRequest(
            setting.model, audio=gather(setting.draws[0], folder / "0"), activations="dynamic", seed=SEED
        )
        store = default_store()
        judge = Judge(read_voice(base, store, no_progress), setting.judged, store)
        data = {
            AN4: f"{setting.split}: {described(setting.judged)}",
            "calibration": f"{AN4} train: {len(setting.draws)} draws of {len(setting.draws[0])} clips, a "
            "quarter left out",
        }
        fingerprint = judge.voice.model.fingerprint
        found = provenance(setting.name, arguments, setting.model, fingerprint, data)
        notebook = Notebook(out, HeadDocument, f"{setting.name.replace('-', '_')}_{setting.split}", found)
        cells = list(_cells(setting, base, judge))
        keys = [_key(setting, fingerprint, cell) for cell in cells]
        notebook.keep(keys)
        judges = {0: judge}
        for number, (key, cell) in enumerate(zip(keys, cells, strict=True)):
            progress("head to head", number, len(keys))
            if notebook.get(key) is not None:
                continue
            if cell.draw not in judges:
                audio = gather(setting.draws[cell.draw], folder / str(cell.draw))
                judges[cell.draw] = judge.calibrated_on(_clips(replace(base, audio=audio), store))
            notebook.add(_row(judges[cell.draw], key, cell))
        progress("head to head", len(keys), len(keys))
        rows = [row for key in keys if (row := notebook.get(key)) is not None]
        document = notebook.write(keys, tuple(compare(rows, setting.judged)))
    assert isinstance(document, HeadDocument)
    return document


def _clips(request: CompileRequest, store: FileStore) -> tuple[Clip, ...]:
    return read_voice(request, store, no_progress).calibration


def _row(judge: Judge, key: str, cell: _Cell) -> HeadRow:
    if cell.tool is not None:
        size, module = cell.tool.quantise(judge)
        return judge.scored(HeadRow, module, key=key, method=cell.tool.name, bits=cell.bits, bytes=size)
    tier = None if cell.request is None else cell.request.tier
    return judge.row(HeadRow, key, cell.bits, cell.request, tier=tier, draw=cell.draw)


def _cells(setting: Setting, base: CompileRequest, judge: Judge) -> Iterator[_Cell]:
    """Method by method, for a method's budgets share what it measures; what is asked first comes first."""
    ladder = judge.ladder(base)
    budgets = {bits: judge.budget(base, ladder, bits) for bits in setting.bits}
    named = {bits: judge.budget(replace(base, rounding="compensated"), ladder, bits) for bits in setting.bits}
    yield _Cell()
    for request in _headline(base):
        yield from (_Cell(bits, replace(request, budget=size)) for bits, size in budgets.items())
    for draw in range(1, len(setting.draws)):
        for request in _headline(base):
            yield from (
                _Cell(bits, replace(request, budget=size), draw=draw) for bits, size in budgets.items()
            )
    for bits in setting.own_bits:
        own = replace(base, budget=judge.budget(base, ladder, bits))
        yield from (_Cell(bits, own, draw=draw) for draw in range(len(setting.draws)))
    for request in _others(base) if setting.whole else ():
        # A manifest that names the rounding of every site takes a few bytes more: one width has to fit.
        sizes = named if (request.method, request.rounding) == ("uniform", "compensated") else budgets
        yield from (_Cell(bits, replace(request, budget=size)) for bits, size in sizes.items())
    yield from (_Cell(tool=tool, bits=tool.bits) for tool in setting.tools)


def _headline(base: CompileRequest) -> Iterator[CompileRequest]:
    """The default method, and every myQASR that could be the best."""
    yield base
    for calibration in _CALIBRATIONS:
        for order in _ORDERS:
            yield replace(base, method="myqasr", order=order, calibration=calibration)


def _others(base: CompileRequest) -> Iterator[CompileRequest]:
    yield replace(base, method="uniform")
    yield replace(base, effort="quick")
    yield replace(base, rounding="nearest")
    for order in _ORDERS:
        yield replace(base, method="myqasr", order=order, rounding="compensated")
    yield replace(base, rounding="gptq")
    yield replace(base, method="uniform", rounding="compensated")
    for order in _ORDERS:
        yield replace(base, method="myqasr", order=order, tier="paper", activations="static")
    yield replace(base, effort="max")


def _key(setting: Setting, fingerprint: str, cell: _Cell) -> str:
    return cell_key(
        fingerprint=fingerprint,
        judged=[utterance.path.name for utterance in setting.judged.utterances],
        calibration=[utterance.path.name for utterance in setting.draws[cell.draw]],
        **cell.said,
    )


def compare(rows: Sequence[HeadRow], judged: Dataset) -> Iterator[Comparison]:
    """The default method with myQASR at each budget that has both, over all draws that have both."""
    errors = _Errors(judged)
    full = errors.of(next(row.texts for row in rows if row.method == "full precision"))
    ours = {(row.bits, row.draw): row for row in rows if _is_default(row)}
    for bits in sorted({row.bits for row in rows if row.bits is not None}):
        variants: dict[str, dict[int, HeadRow]] = defaultdict(dict)
        for row in rows:
            same = (row.method, row.rounding, row.tier, row.bits) == ("myqasr", "nearest", "default", bits)
            if same and not row.unreachable and (bits, row.draw) in ours:
                variants[f"{row.order}, {row.calibration}"][row.draw] = row
        if not variants:
            continue
        most = max(len(found) for found in variants.values())
        whole = {name: found for name, found in variants.items() if len(found) == most}
        best = min(whole, key=lambda name: sum(errors.of(row.texts).sum() for row in whole[name].values()))
        theirs = np.stack([errors.of(row.texts) for row in whole[best].values()])
        mine = np.stack([errors.of(ours[bits, draw].texts) for draw in whole[best]])
        lost, gained = float((theirs - full).sum()), float((mine - full).sum())
        yield Comparison(
            bits=bits,
            best=best,
            draws=most,
            increase=errors.rate(mine - full),
            theirs=errors.rate(theirs - full),
            difference=errors.rate(mine - theirs),
            half=errors.rate(mine - 0.5 * theirs - 0.5 * full),
            share=round(gained / lost, 4) if lost > 0 else None,
            bytes_share=_bytes_share(ours, whole[best], errors),
        )


def _is_default(row: HeadRow) -> bool:
    usual = ("auto", "compensated", "normal")
    return (row.method, row.rounding, row.effort) == usual and not row.unreachable


def _bytes_share(
    ours: Mapping[tuple[float | None, int], HeadRow], theirs: Mapping[int, HeadRow], errors: _Errors
) -> float | None:
    most = sum(errors.of(row.texts).sum() for row in theirs.values())
    sizes = []
    for bits in {bits for bits, _ in ours}:
        rows = [ours[bits, draw] for draw in theirs if (bits, draw) in ours]
        if len(rows) == len(theirs) and sum(errors.of(row.texts).sum() for row in rows) <= most:
            sizes.append(sum(row.bytes for row in rows))
    return round(min(sizes) / sum(row.bytes for row in theirs.values()), 4) if sizes else None


class _Errors:
    """Word errors of the judged recordings."""

    def __init__(self, judged: Dataset) -> None:
        self._speakers, _ = clusters(judged.utterances)
        self._said = [utterance.text or "" for utterance in judged.utterances]
        self._words = metrics.count_words(self._said, self._said).length

    def of(self, texts: Sequence[str]) -> Values:
        """Of each recording."""
        return metrics.count_words(self._said, texts).errors.astype(np.float64)

    def rate(self, values: Values) -> Rate:
        """Of values [draws, recordings] in points, with its interval over speakers and draws."""
        return mean_rate(values, self._words, self._speakers, PERCENT)


def measure(options: Options, progress: Progress) -> HeadDocument:
    """`bitvox reproduce head-to-head`; a limit is one on the judged recordings."""
    return _measure(options, progress, _setting(options, _CALIBRATION_CLIPS))


def measure_minutes(options: Options, progress: Progress) -> HeadDocument:
    """`bitvox reproduce head-to-head-minutes`."""
    return _measure(options, progress, _minutes(options))


def measure_offsets(options: Options, progress: Progress) -> HeadDocument:
    """`bitvox reproduce head-to-head-offsets`."""
    setting = _minutes(options)
    with tempfile.TemporaryDirectory() as scratch:
        judged = at_offsets(setting.judged, OFFSETS, _FRAME, _RATE, Path(scratch))
        setting = replace(
            setting,
            judged=judged,
            bits=HALVED,
            own_bits=(_THREE_QUARTERS, min(LOW_BITS)),
            name="head-to-head-offsets",
        )
        return _measure(options, progress, setting)


def _minutes(options: Options) -> Setting:
    setting = _setting(options, _MINUTES_CLIPS)
    return replace(
        setting,
        bits=LOW_BITS,
        own_bits=(_THREE_QUARTERS,),
        tools=(),
        whole=False,
        name="head-to-head-minutes",
    )


def _setting(options: Options, clips: int) -> Setting:
    speech = speech_folder()
    train = read_split(speech, AN4, "train")
    draws = tuple(tuple(draw_clips(train, clips, SEED + draw)) for draw in range(DRAWS))
    judged = stratified(read_split(speech, AN4, options.split), options.limit, SEED)
    return Setting(options.model, draws, judged, options.split)


def _measure(options: Options, progress: Progress, setting: Setting) -> HeadDocument:
    torch.set_num_threads(1)
    return head_to_head(options.out, setting, progress, options.arguments)
