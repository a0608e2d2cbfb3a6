"""The judge of every experiment that compares methods: a request becomes a plan, a quantised model, texts.

What is judged is the torch model that bundles are compared with site by site; bytes are those that the files
of the bundle take.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bitvox.benchmarks import metrics
from bitvox.benchmarks.dataset import Dataset, clusters
from bitvox.benchmarks.experiments.ladder import Ladder, measure_ladder
from bitvox.benchmarks.experiments.provenance import commit
from bitvox.benchmarks.experiments.results import Cell, Errors, Rate
from bitvox.benchmarks.experiments.unit_calibration import calibrate_by_unit
from bitvox.compiler.frontend.audio import Clip, read_clip
from bitvox.compiler.lowering.rounding import round_sites
from bitvox.compiler.passes.base import PassContext, Sequential
from bitvox.compiler.passes.bytes import average_bits
from bitvox.compiler.passes.conv_ranges import FitConvRangesPass
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import quantise_module
from bitvox.errors import InputError, RequestError
from bitvox.planning import allocated_plan, byte_costs, plan_for
from bitvox.progress import no_progress
from bitvox.request import CompileRequest
from bitvox.store import FileStore
from bitvox.voice import Voice


class JudgedRow(Cell):
    """One method at one budget.

    Attributes:
        method: As `bitvox compile` takes it, or `full precision`; its options follow.
        bits: Average whose bytes are the budget.
        bytes: Of the bundle, sized by its files.
        words: Word errors (of a classifier, wrong labels); `difference`: their rate minus that of full
            precision, in points.
        divergence: KL(full precision || row), mean over frames.
        texts: What was written of each recording, for paired comparisons; `divergences`: of each recording,
            summed over its `frames`.
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
    divergences: tuple[float, ...] = ()
    frames: tuple[int, ...] = ()


R = TypeVar("R", bound=JudgedRow)


@dataclass(frozen=True)
class Heard:
    """What a model made of the judged recordings.

    Attributes:
        texts: Greedy transcripts, or labels.
        divergences: KL(full precision || model), summed over the frames of each recording.
        frames: Of each recording.
    """

    texts: tuple[str, ...]
    divergences: tuple[float, ...]
    frames: tuple[int, ...]

    @property
    def divergence(self) -> float:
        """Mean over all frames."""
        return sum(self.divergences) / sum(self.frames)


class Judge:
    """One process's model, calibration clips and judged recordings, which full precision has heard.

    InputError where a recording would be both.
    """

    def __init__(self, voice: Voice, judged: Dataset, store: FileStore) -> None:
        self.voice, self.store, self.judged = voice, store, judged
        rate = voice.model.processor.sampling_rate
        clips = [read_clip(utterance.path, rate).samples for utterance in judged.utterances]
        self._heard = {clip.tobytes(): one.path for clip, one in zip(clips, judged.utterances, strict=True)}
        self._check_disjoint()
        self._samples = clips
        self._inputs = [voice.model.inputs(samples) for samples in clips]
        self.said = [utterance.text or "" for utterance in judged.utterances]
        self.speakers, _ = clusters(judged.utterances)
        self._expected = self._logits(voice.model.module)
        self.full = self._texts(voice.model.module, self._expected)

    def calibrated_on(
        self, clips: Sequence[Clip], generic: Sequence[Clip] = (), own_share: float = 1.0
    ) -> Judge:
        """The same judge of models that are calibrated on other clips, mixed with generic ones or alone."""
        other = copy.copy(self)
        other.voice = replace(
            self.voice, calibration=tuple(clips), generic=tuple(generic), share=own_share if generic else 1.0
        )
        other._check_disjoint()
        return other

    def only(self, recordings: Sequence[int]) -> Judge:
        """The same judge of some of the recordings, by their places."""
        other = copy.copy(self)
        chosen = [self.judged.utterances[place] for place in recordings]
        other.judged = replace(self.judged, utterances=tuple(chosen))
        paths = {utterance.path for utterance in chosen}
        other._heard = {samples: path for samples, path in self._heard.items() if path in paths}
        other._samples = [self._samples[place] for place in recordings]
        other._inputs = [self._inputs[place] for place in recordings]
        other._expected = [self._expected[place] for place in recordings]
        other.said = [self.said[place] for place in recordings]
        other.speakers = [self.speakers[place] for place in recordings]
        other.full = tuple(self.full[place] for place in recordings)
        return other

    def ladder(self, base: CompileRequest) -> Ladder:
        """What the model's bundles take at each width."""
        widest = replace(base, method="uniform", budget=1 << 40)
        return measure_ladder(self.voice, plan_for(self.voice, widest, self.store, no_progress))

    def budget(self, base: CompileRequest, ladder: Ladder, bits: float) -> int:
        """Bytes of the bundle of one width, or as far between two as `bits` is."""
        if not bits.is_integer():
            return ladder.at_average(bits)[0]
        uniform = replace(base, method="uniform", budget=ladder.only(int(bits)))
        return allocated_plan(self.voice, uniform, self.store, no_progress).total_bytes

    def row(
        self, form: type[R], key: str, bits: float | None, request: CompileRequest | None, **more: object
    ) -> R:
        """A finished row with `more` fields of its form; without a request, that of full precision."""
        if request is None:
            return self.scored(form, self.voice.model.module, key=key, method="full precision", **more)
        asked = _asked(request) | {"key": key, "bits": bits, "budget": request.budget} | more
        try:
            plan, module = self.quantised(request)
        except RequestError as error:
            return self.scored(form, self.voice.model.module, unreachable=str(error), **asked)
        return self.row_of(form, request, plan, module, key=key, bits=bits, **more)

    def row_of(
        self, form: type[R], request: CompileRequest, plan: QuantPlan, module: torch.nn.Module, **more: object
    ) -> R:
        """The row of a request's plan and of the model that follows it, with `more` fields of its form."""
        told: dict[str, object] = {
            "budget": request.budget,
            "bytes": plan.total_bytes,
            "average_bits": round(average_bits(self.voice.model, plan), 4),
            "widths": dict(sorted(Counter(str(entry.bits or "float") for entry in plan.sites).items())),
            "plan": plan.method,
        }
        return self.scored(form, module, **(_asked(request) | told | more))

    def quantised(self, request: CompileRequest) -> tuple[QuantPlan, torch.nn.Module]:
        """The plan for a request and the torch model that follows it; RequestError as `allocated_plan`."""
        plan = self.planned(request)
        return plan, self.following(plan)

    def planned(self, request: CompileRequest) -> QuantPlan:
        """The calibrated plan for a request; RequestError as `allocated_plan`."""
        if request.activations == "static":
            return plan_for(self.voice, request, self.store, no_progress)
        plan = allocated_plan(self.voice, request, self.store, no_progress)
        if request.calibration == "min-max" and request.activations != "static":  # neither steps nor ranges
            return plan
        context = self._context(plan)
        plan = calibrate_by_unit(context, plan, request.calibration, request.seed, self.store)
        if request.activations == "static" and request.tier == "default":
            plan = Sequential((FitConvRangesPass(),)).run(context, plan, self.store)
        return plan

    def following(self, plan: QuantPlan) -> torch.nn.Module:
        """The torch model that follows a plan, rounded on the calibration clips."""
        codes = round_sites(self._context(plan), plan, self.store)
        return quantise_module(self.voice.model, plan, codes)

    def hear(self, module: torch.nn.Module) -> Heard:
        """What a module makes of the judged recordings."""
        logits = self._logits(module)
        return Heard(
            self._texts(module, logits),
            tuple(_divergence(*pair) for pair in zip(logits, self._expected, strict=True)),
            tuple(one.shape[0] for one in logits),
        )

    def count(self, texts: Sequence[str]) -> metrics.ErrorCounts:
        """Errors of each recording: of its words, or of a classifier's label."""
        classifier = self.voice.model.family == "classifier"
        return (metrics.count_labels if classifier else metrics.count_words)(self.said, texts)

    def scored(self, form: type[R], module: torch.nn.Module, **fields: object) -> R:
        """A row of what a module writes; `fields` are those that its texts do not tell."""
        heard = self.hear(module)
        ours = self.count(heard.texts)
        row = {
            "commit": commit(),
            "words": Errors.of(metrics.error_rate(ours, self.speakers)),
            "difference": Rate.of(metrics.rate_difference(ours, self.count(self.full), self.speakers)),
            "divergence": round(heard.divergence, 9),
            "texts": heard.texts,
            "divergences": tuple(round(one, 6) for one in heard.divergences),
            "frames": heard.frames,
        }
        return form.model_validate(row | fields)

    def _check_disjoint(self) -> None:
        for clip in self.voice.learnt_from:
            if path := self._heard.get(clip.samples.tobytes()):
                raise InputError(f"{path}: calibrates and is judged on; draw calibration clips from others")

    def _context(self, plan: QuantPlan) -> PassContext:
        costs = byte_costs(self.voice, plan.storage, plan.kernels)
        return self.voice.context(costs, store=self.store)

    @torch.inference_mode()
    def _logits(self, module: torch.nn.Module) -> list[Tensor]:
        """[frames, outputs] of each recording; one frame of a classifier."""
        return [logits.reshape(-1, logits.shape[-1]) for logits in (module(*one) for one in self._inputs)]

    def _texts(self, module: torch.nn.Module, logits: Sequence[Tensor]) -> tuple[str, ...]:
        model = self.voice.model
        if model.family == "encoder-decoder":  # reads its own tokens, not those that gave the logits
            own = replace(model, module=module)
            return tuple(own.transcribe(samples) for samples in self._samples)
        return tuple(model.processor.decode(one.numpy()) for one in logits)


def _divergence(found: Tensor, wanted: Tensor) -> float:
    ours, theirs = (functional.log_softmax(one.double(), dim=-1) for one in (found, wanted))
    return float(functional.kl_div(ours, theirs, reduction="sum", log_target=True))


def _asked(request: CompileRequest) -> dict[str, object]:
    return {
        "method": request.method,
        "order": request.order if request.method == "myqasr" else None,
        "calibration": request.calibration,
        "rounding": request.chosen_rounding,
        "effort": request.effort if request.method == "auto" else None,
    }
