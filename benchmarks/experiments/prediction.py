"""Does a score say what quantising a layer costs? Scores and costs beside the divergence that was measured.

    bitvox reproduce prediction
    bitvox reproduce prediction-conformer

Each share group in turn is quantised, alone; the divergence of the model's output on recordings of other
speakers than the calibration's is what a score should have foretold. Rank correlation, over share groups.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from bitvox.benchmarks.dataset import Dataset, read_dataset
from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.judge import Judge
from bitvox.benchmarks.experiments.keywords import MODELS as KEYWORD_MODELS
from bitvox.benchmarks.experiments.provenance import commit, provenance
from bitvox.benchmarks.experiments.results import Cell, Document, Notebook, Schema, cell_key
from bitvox.benchmarks.experiments.speech import (
    AN4,
    COMMANDS,
    described,
    draw_clips,
    gather,
    read_split,
    speech_folder,
    stratified,
)
from bitvox.benchmarks.experiments.variants import SEED
from bitvox.benchmarks.metrics import RESAMPLES
from bitvox.benchmarks.reference_model.train_keywords import taught_speakers
from bitvox.compiler.frontend.threads import single_threaded
from bitvox.compiler.passes.base import PassContext, Sequential
from bitvox.compiler.passes.distance import MeasureDistancePass
from bitvox.compiler.passes.group_roundings import put_weights, round_all, stored_weights
from bitvox.compiler.passes.measure_costs import MeasureCostsPass
from bitvox.compiler.passes.plan import Cost, QuantPlan, Rounding, Tier
from bitvox.compiler.passes.quantizer import dequantised_weight
from bitvox.compiler.passes.sensitivity import MeasureSensitivityPass
from bitvox.compiler.passes.start import start_plan
from bitvox.compiler.passes.streaming_median import REDUCTIONS
from bitvox.compiler.passes.units import Unit, units_of
from bitvox.planning import byte_costs
from bitvox.progress import Progress, no_progress
from bitvox.request import CompileRequest
from bitvox.store import default_store
from bitvox.voice import read_voice

# Whole utterances of AN4; of commands, which last a second, three times as many.
_CLIPS, _RECORDINGS = 32, 30
_COMMAND_CLIPS, _COMMAND_RECORDINGS = 96, 200
_COSTS: tuple[Cost, ...] = ("error", "noise", "divergence")


@dataclass(frozen=True)
class Quantiser:
    """How the one group is quantised: a tier's steps, a width, a rounding."""

    tier: Tier
    bits: int
    rounding: Rounding = "nearest"

    def __str__(self) -> str:
        return f"{self.bits} bits, {self.rounding}, tier {self.tier}"


QUANTISERS = (Quantiser("paper", 4), Quantiser("default", 3), Quantiser("default", 2, "gptq"))


class PredictionRow(Cell):
    """All share groups of a model under one quantiser.

    Attributes:
        groups: Their names; `weights`: how many each has.
        measured: Divergence, nats a frame, of the model with that group alone quantised.
        predicted: Score or cost -> what it says of each group, on the calibration clips.
    """

    model: str
    quantiser: str
    groups: tuple[str, ...]
    weights: tuple[int, ...]
    measured: tuple[float, ...]
    predicted: dict[str, tuple[float, ...]]


class Correlation(Schema):
    """Spearman's rank correlation of a prediction with what was measured; the interval is over groups."""

    model: str
    quantiser: str
    prediction: str
    groups: int
    correlation: float
    low: float
    high: float


class PredictionDocument(Document[PredictionRow, Correlation]):
    """`prediction.json`."""


def prediction(
    out: Path,
    model: str,
    calibration: Dataset,
    judged: Dataset,
    progress: Progress = no_progress,
    arguments: Sequence[str] = (),
    name: str = "prediction",
) -> PredictionDocument:
    """Measure every quantiser that the file lacks, for the experiment of that name."""
    with tempfile.TemporaryDirectory() as scratch, single_threaded():
        audio = gather(calibration.utterances, Path(scratch) / "clips")
        request = CompileRequest(model, audio=audio, clips=len(calibration.utterances))
        judge = Judge(read_voice(request, default_store(), no_progress), judged, default_store())
        fingerprint = judge.voice.model.fingerprint
        data = {"judged": described(judged), "calibration": described(calibration)}
        found = provenance(name, arguments, model, fingerprint, data)
        notebook = Notebook(out, PredictionDocument, name, found)
        keys = [
            cell_key(
                fingerprint=fingerprint,
                quantiser=str(quantiser),
                calibration=[one.path.name for one in calibration.utterances],
                judged=[one.path.name for one in judged.utterances],
            )
            for quantiser in QUANTISERS
        ]
        notebook.keep(keys)
        for number, (key, quantiser) in enumerate(zip(keys, QUANTISERS, strict=True)):
            progress("prediction", number, len(keys))
            if notebook.get(key) is None:
                notebook.add(_row(key, model, judge, quantiser))
        progress("prediction", len(keys), len(keys))
        rows = [row for key in keys if (row := notebook.get(key)) is not None]
        document = notebook.write(keys, tuple(_correlations(rows)))
    assert isinstance(document, PredictionDocument)
    return document


def _row(key: str, model: str, judge: Judge, quantiser: Quantiser) -> PredictionRow:
    voice = judge.voice
    context = voice.context(byte_costs(voice, "packed"))
    plan = start_plan(
        voice.model, context.costs, "onnx", quantiser.tier, "dynamic", rounding=quantiser.rounding
    )
    units = units_of(context, plan, "true")
    return PredictionRow(
        key=key,
        commit=commit(),
        model=model,
        quantiser=str(quantiser),
        groups=tuple(_name(unit) for unit in units),
        weights=tuple(sum(site.weights for site, _ in unit.entries) for unit in units),
        measured=tuple(_measured(judge, context, plan, units, quantiser)),
        predicted=_predicted(judge, context, plan, quantiser),
    )


def _name(unit: Unit) -> str:
    return unit.entries[0][0].share_group


def _measured(
    judge: Judge, context: PassContext, plan: QuantPlan, units: Sequence[Unit], quantiser: Quantiser
) -> Iterator[float]:
    """Divergence on the judged recordings with each unit alone quantised."""
    module, bits = copy.deepcopy(context.model.module), quantiser.bits
    gptq = round_all(context, plan, units, (bits,)) if quantiser.rounding == "gptq" else {}
    for unit in units:
        stored = stored_weights(context, unit)
        if unit_gptq := gptq.get(_name(unit)):
            put_weights(module, unit_gptq.weights(bits))
        else:
            entries = {site.name: entry.replace(bits=bits) for site, entry in unit.entries}
            put_weights(
                module, {name: dequantised_weight(stored[name], one) for name, one in entries.items()}
            )
        yield round(judge.hear(module).divergence, 9)
        put_weights(module, stored)


def _predicted(
    judge: Judge, context: PassContext, plan: QuantPlan, quantiser: Quantiser
) -> dict[str, tuple[float, ...]]:
    """What each score says; of weights rounded to nearest a step per channel, each cost at that width too."""
    found: dict[str, tuple[float, ...]] = {}
    for reduction in REDUCTIONS:
        scored = Sequential((MeasureSensitivityPass(reduction),)).run(context, plan, judge.store)
        found[reduction] = tuple(unit.score for unit in units_of(context, scored, "true"))
    scored = Sequential((MeasureDistancePass("kl"),)).run(context, plan, judge.store)
    found["kl"] = tuple(unit.score for unit in units_of(context, scored, "true"))
    if quantiser.tier == "paper" or quantiser.rounding != "nearest":
        return found
    for cost in _COSTS:
        priced = Sequential((MeasureCostsPass(cost),)).run(context, plan, judge.store)
        units = units_of(context, priced, "true")
        found[f"cost {cost}"] = tuple((unit.entries[0][1].costs or ())[quantiser.bits - 2] for unit in units)
    return found


def _correlations(rows: Sequence[PredictionRow]) -> Iterator[Correlation]:
    for row in rows:
        named: Mapping[str, Sequence[float]] = {**row.predicted, "number of weights": row.weights}
        for name, values in named.items():
            correlation, low, high = rank_correlation(values, row.measured)
            yield Correlation(
                model=row.model,
                quantiser=row.quantiser,
                prediction=name,
                groups=len(row.groups),
                correlation=correlation,
                low=low,
                high=high,
            )


def rank_correlation(one: npt.ArrayLike, other: npt.ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """Spearman's rho with its 95 % interval, percentile bootstrap over pairs."""
    pairs = np.stack([np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)])
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, pairs.shape[1], size=(RESAMPLES, pairs.shape[1]))
    ranks = stats.rankdata(pairs[:, drawn], axis=-1)
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).sum(axis=-1).prod(axis=0))
    found = (centred[0] * centred[1]).sum(axis=-1)[spread > 0] / spread[spread > 0]
    low, high = np.percentile(found, (2.5, 97.5))
    middle = float(stats.spearmanr(pairs[0], pairs[1]).statistic)
    return round(middle, 4), round(float(low), 4), round(float(high), 4)


def measure(options: Options, progress: Progress) -> PredictionDocument:
    """`bitvox reproduce prediction`; a limit is one on the judged recordings."""
    speech = speech_folder()
    train = read_split(speech, AN4, "train")
    judged = stratified(read_split(speech, AN4, options.split), options.limit or _RECORDINGS, SEED)
    clips = _calibration(train, _CLIPS)
    return prediction(options.out, options.model, clips, judged, progress, options.arguments)


def measure_conformer(options: Options, progress: Progress) -> PredictionDocument:
    """`bitvox reproduce prediction-conformer`, on speakers that the keyword model was never taught."""
    model, half = next(iter(KEYWORD_MODELS.items()))
    everyone = read_dataset(speech_folder() / COMMANDS / "manifest.csv")
    taught = taught_speakers([one.speaker or "" for one in everyone.utterances], half)
    ours, strangers = (
        Dataset(
            everyone.origin, tuple(one for one in everyone.utterances if (one.speaker in taught) == known)
        )
        for known in (True, False)
    )
    judged = stratified(strangers, options.limit or _COMMAND_RECORDINGS, SEED)
    clips = _calibration(ours, _COMMAND_CLIPS)
    return prediction(
        options.out, model, clips, judged, progress, options.arguments, name="prediction-conformer"
    )


def _calibration(dataset: Dataset, count: int) -> Dataset:
    """Clips drawn by seed: a third more than calibrate, for of every four one is kept from calibration."""
    return Dataset(dataset.origin, tuple(draw_clips(dataset, count * 4 // 3, SEED)))
