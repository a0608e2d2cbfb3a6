"""Activation ranges and weight steps from the user's clips: min-max, cosine, Hessian-guided."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, get_args

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.frontend.threads import side_by_side
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.observers import (
    FrameSampler,
    RangeObserver,
    clip_inputs,
    columns,
    output_rows,
    watching,
)
from bitvox.compiler.passes.plan import Calibration, Kernels, QuantPlan, Range, SitePlan
from bitvox.compiler.passes.verify import Fact
from bitvox.compiler.passes.weight_search import (
    Objective,
    SiteSample,
    cosine_distance,
    gradient_weighted_error,
    search_steps,
)
from bitvox.errors import InputError

_OBJECTIVES: dict[Calibration, Objective] = {"cosine": cosine_distance, "hessian": gradient_weighted_error}

# On the reference model and 16 AN4 clips, factors found on 256 frames are within 0.08 of those found on 1,500
# at a quarter of the time. The second cap bounds a site's sample to 64 MiB where one frame has many inputs
# (positional convolution: 98,304).
_FRAMES = 256
_VALUES = 1 << 24
_FEWEST_FRAMES = 32


@dataclass(frozen=True)
class CalibratePass:
    """Sets `input_range`, `output_range` and `clip` of the sites whose activations or weights need them.

    Methods:
        min-max: The smallest and largest value seen, streaming; weights keep clip = 1 (arXiv 2307.12659,
            myQASR).
        cosine: Factors on the min-max steps that minimise the cosine distance of each site's output from its
            full-precision output (myQASR-Cosine), on at most 256 frames per site.
        hessian: The same search, minimising the squared output error weighted by the squared gradient of a
            loss (myQASR-Hessian), and the one method that uses back-propagation. Our repair: the released
            loss compares the model's distribution with itself, so its gradient is zero; here the loss is the
            cross entropy against labels sampled from the model's own distribution with `seed`, whose squared
            gradient is the diagonal of the Fisher information. Back-propagation holds the activations of one
            whole clip.

    Sites that read one input get one range. Output ranges are min-max with every method. Ranges are set for
    `static` activations alone.
    """

    method: Calibration = "min-max"
    seed: int = 0

    name: ClassVar[str] = "calibrate"
    counts_bytes: ClassVar[bool] = True
    requires: ClassVar[frozenset[Fact]] = frozenset({"widths"})
    ensures: ClassVar[frozenset[Fact]] = frozenset({"ranges"})

    def __post_init__(self) -> None:
        if self.method not in get_args(Calibration):
            raise InputError(
                f"calibration {self.method}: unknown; use one of {', '.join(get_args(Calibration))}"
            )

    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The plan with ranges; InputError without clips or if an activation is not finite."""
        observed = self._observe(context, plan)
        spans = _input_spans(context, observed)
        sites = tuple(
            _with_ranges(site, entry, spans, observed, plan.kernels)
            for site, entry in zip(context.model.sites, plan.sites, strict=True)
        )
        ranged = plan.replace(sites=sites).noting(calibration=self.method)
        return ranged if self.method == "min-max" else self._search(context, ranged, observed)

    def _observe(self, context: PassContext, plan: QuantPlan) -> _Observed:
        """One pass over the clips."""
        quantised = [site for site in context.model.sites if plan.site(site.name).bits is not None]
        sampled = [] if self.method == "min-max" else quantised
        observed = _Observed(context, sampled, with_gradient=self.method == "hessian")
        generator = torch.Generator().manual_seed(self.seed)
        needs_clips = bool(sampled) or any(entry.activations == "static" for entry in plan.sites)
        if not needs_clips:
            return observed
        with watching(context.model, quantised, observed.visit):
            for number, inputs in clip_inputs(context, "calibrate"):
                observed.clip = number
                if self.method == "hessian":
                    _back_propagate_sampled_labels(context.model.module, inputs, generator)
                else:
                    with torch.inference_mode():
                        context.model.module(*inputs)
        observed.check_finite()
        return observed

    def _search(self, context: PassContext, plan: QuantPlan, observed: _Observed) -> QuantPlan:
        groups = _quantised_groups(context, plan)
        done = itertools.count(1)

        def search(group: tuple[Site, ...]) -> list[SitePlan]:
            entries = [plan.site(site.name) for site in group]
            samples = [observed.sample(context, site) for site in group]
            result = search_steps(samples, entries, _OBJECTIVES[self.method])
            context.progress("search steps", next(done), len(groups))
            return [
                entry.replace(clip=clip, input_range=result.input_range)
                for entry, clip in zip(entries, result.clips, strict=True)
            ]

        searched = side_by_side(search, groups, context.threads)
        found = {entry.site: entry for entries in searched for entry in entries}
        return plan.replace(sites=tuple(found.get(entry.site, entry) for entry in plan.sites))


@dataclass
class _Record:
    """What is kept of one site while the clips go by."""

    inputs: RangeObserver = field(default_factory=RangeObserver)
    outputs: RangeObserver = field(default_factory=RangeObserver)
    columns: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)


class _Observed:
    """Ranges of all watched sites, and frame samples of those that are searched."""

    def __init__(self, context: PassContext, sampled: Sequence[Site], with_gradient: bool) -> None:
        self.clip = 0
        self.with_gradient = with_gradient
        self.records: dict[str, _Record] = {}
        self.samplers = {site.name: FrameSampler(_frames(site), len(context.clips)) for site in sampled}

    def visit(self, site: Site, values: Tensor, output: Tensor) -> None:
        record = self.records.setdefault(site.name, _Record())
        record.inputs.update(values)
        if site.operator == "conv1d":
            record.outputs.update(output)
        if site.name not in self.samplers:
            return
        available = output_rows(site, output.detach()).shape[0]
        positions = self.samplers[site.name].positions(self.clip, available)
        if len(positions) == 0:
            return
        record.columns.append(columns(site, values.detach(), positions).clone())
        if self.with_gradient:

            def keep(gradient: Tensor) -> None:
                record.gradients.append(output_rows(site, gradient)[positions].clone())

            output.register_hook(keep)

    def check_finite(self) -> None:
        for name, record in self.records.items():
            for seen in (record.inputs, record.outputs):
                if not seen.finite:
                    raise InputError(f"site {name}: its activations are not finite on the calibration clips")

    def sample(self, context: PassContext, site: Site) -> SiteSample:
        """The sample of a site, released here so that memory falls as the search goes on."""
        module, record = context.model.site_module(site), self.records.pop(site.name)
        bias = None if module.bias is None else module.bias.detach()
        gradient = torch.cat(record.gradients) if self.with_gradient else None
        return SiteSample(site, module.weight.detach(), bias, torch.cat(record.columns), gradient)


def _frames(site: Site) -> int:
    groups = 1 if site.conv is None else site.conv.groups
    inputs = groups * site.weights // site.channels
    return max(_FEWEST_FRAMES, min(_FRAMES, _VALUES // inputs))


def _back_propagate_sampled_labels(
    module: torch.nn.Module, inputs: tuple[Tensor, ...], generator: torch.Generator
) -> None:
    """Send the gradient of the cross entropy against sampled labels through the sites, to their hooks.

    Only the path to the input is differentiated, so that no weight gradient is ever computed or stored.
    """
    with torch.enable_grad():
        features, *rest = inputs
        source = features.clone().requires_grad_(True)
        logits = module(source, *rest)[0]
        labels = torch.multinomial(logits.detach().softmax(dim=-1), 1, generator=generator)[:, 0]
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        torch.autograd.grad(loss, source)


def _quantised_groups(context: PassContext, plan: QuantPlan) -> list[tuple[Site, ...]]:
    groups = context.model.share_groups()
    return [group for group in groups if plan.site(group[0].name).bits is not None]


def _input_spans(context: PassContext, observed: _Observed) -> dict[str, Range]:
    """Range of each site's input: of a share group the one that covers all its members' inputs."""
    spans: dict[str, Range] = {}
    for group in context.model.share_groups():
        merged = RangeObserver()
        for site in group:
            if site.name in observed.records:
                seen = observed.records[site.name].inputs
                merged.include(seen.low, seen.high)
        spans.update({site.name: merged.span() for site in group})
    return spans


def _with_ranges(
    site: Site, entry: SitePlan, spans: dict[str, Range], observed: _Observed, kernels: Kernels
) -> SitePlan:
    if entry.activations != "static":
        return entry.replace(clip=1.0, input_range=None, output_range=None)
    rounds_output = site.operator == "conv1d" and kernels == "stock"
    output = observed.records[site.name].outputs.span() if rounds_output else None
    return entry.replace(clip=1.0, input_range=spans[entry.site], output_range=output)
