"""What each choice of myQASR is worth: sensitivity, order, calibration, unit, clips and their length.

    bitvox reproduce ablations

Both tiers, at budgets where they lose something and where choices can therefore differ: `paper` as published
(a weight step per layer, activations of calibrated range), and the repaired `default` (a step per output
channel, activations ranged at each call).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.variants import Draw, Variant, VariantDocument, measure_variants
from bitvox.progress import Progress
from bitvox.request import CompileRequest, Order, Reduction

_CHOICES, _CLIPS = "one choice changed", "clips"
_SHUFFLES = 5
_DRAWS = 5
_COUNTS = (32, 1, 4, 16, 2, 8, 100)
_SECONDS = 1.5625
"""The 25,000 samples that the released code cuts clips to."""

# Bits of a tier's budgets: at the first every choice is tried, at the second the orders alone.
_BUDGETS = {"default": (2.5, 3.5), "paper": (3.5, 4.5)}


def variants(model: str) -> tuple[Variant, ...]:
    """Every variant; draw by draw where there are several."""
    repaired = CompileRequest(model, method="myqasr", tier="default", activations="dynamic")
    paper = replace(repaired, tier="paper", activations="static")
    (tight, wide), (paper_tight, paper_wide) = _BUDGETS["default"], _BUDGETS["paper"]
    return (
        *_choices(paper, paper_tight),
        Variant(_CHOICES, "unit: q, k and v apart", paper, paper_tight, by_layer=True),
        *_choices(repaired, tight),
        *_orders(paper, paper_wide),
        *_orders(repaired, wide),
        *_calibrations(paper, paper_tight),
        *_calibrations(repaired, tight),
        *_clips(paper, paper_tight),
    )


def _choices(request: CompileRequest, bits: float) -> Iterator[Variant]:
    yield from _orders(request, bits)
    for reduction in get_args(Reduction):
        if reduction != request.reduction:
            yield Variant(_CHOICES, f"sensitivity: {reduction}", replace(request, reduction=reduction), bits)
    for seed in range(_SHUFFLES):
        shuffled = replace(request, order="shuffled", seed=seed)
        yield Variant(_CHOICES, f"order: shuffled {seed + 1}", shuffled, bits)


def _calibrations(request: CompileRequest, bits: float) -> Iterator[Variant]:
    yield Variant(_CHOICES, "calibration: cosine", replace(request, calibration="cosine"), bits)
    yield Variant(_CHOICES, "calibration: hessian", replace(request, calibration="hessian"), bits)


def _orders(request: CompileRequest, bits: float) -> Iterator[Variant]:
    """The method as printed, and the other orders that no seed decides."""
    yield Variant(_CHOICES, "median, ascending, min-max", request, bits, reference=True)
    for order in get_args(Order):
        if order not in (request.order, "shuffled"):
            yield Variant(_CHOICES, f"order: {order}", replace(request, order=order), bits)


def _clips(request: CompileRequest, bits: float) -> Iterator[Variant]:
    for number in range(_DRAWS):
        for count in _COUNTS:
            yield Variant(_CLIPS, f"{count}", request, bits, Draw(number, count), reference=count == 32)
        cut = Draw(number, seconds=_SECONDS)
        yield Variant(_CLIPS, f"32 of {_SECONDS:.2f} s", request, bits, cut)


def measure(options: Options, progress: Progress) -> VariantDocument:
    """`bitvox reproduce ablations`; a limit is one on the judged recordings."""
    return measure_variants("ablations", variants(options.model), options, progress)
