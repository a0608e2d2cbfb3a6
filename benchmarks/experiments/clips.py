"""How far down clips can go: the default method on fewer and on more recordings, and on shorter ones.

    bitvox reproduce clips

Two studies. `rounding`: widths stay those that `auto` finds on 32 clips of other speakers' draw, and the
weights are rounded on fewer; `widths and rounding`: everything is found on fewer.
"""

from __future__ import annotations

from collections.abc import Iterator

from bitvox.benchmarks.experiments.experiment import Options
from bitvox.benchmarks.experiments.variants import Draw, Variant, VariantDocument, measure_variants
from bitvox.progress import Progress
from bitvox.request import CompileRequest

_BITS = 2.5
_DRAWS = 5
_COUNTS = (32, 1, 4, 16, 2, 8, 100, 300)
_SECONDS = (1.5625, 0.5)

# Of no row's own clips.
_WIDTHS = Draw(number=1000)


def variants(model: str) -> tuple[Variant, ...]:
    """Every variant, those of the cheaper study first."""
    return (*_rounding(model), *_whole(model))


def _rounding(model: str) -> Iterator[Variant]:
    request = CompileRequest(model, method="auto", activations="dynamic")
    for number in range(_DRAWS):
        for count in _COUNTS:
            draw = Draw(number, count)
            yield Variant("rounding", f"{count}", request, _BITS, draw, count == 32, _WIDTHS)
        for seconds in _SECONDS:
            draw = Draw(number, seconds=seconds)
            yield Variant("rounding", f"32 of {seconds:.2f} s", request, _BITS, draw, False, _WIDTHS)


def _whole(model: str) -> Iterator[Variant]:
    request = CompileRequest(model, method="auto", activations="dynamic")
    for number in range(_DRAWS):
        for count in (32, 1, 4):
            yield Variant("widths and rounding", f"{count}", request, _BITS, Draw(number, count), count == 32)


def measure(options: Options, progress: Progress) -> VariantDocument:
    """`bitvox reproduce clips`; a limit is one on the judged recordings."""
    return measure_variants("clips", variants(options.model), options, progress)
