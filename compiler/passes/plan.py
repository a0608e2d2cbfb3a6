"""`QuantPlan`: the decision, apart from any weight. Frozen dataclasses inside, JSON at the file boundary.

Every number in it is a scalar that a person can read and edit. Codes follow from the plan and the checkpoint;
where the rounding is not to nearest, from the calibration clips too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

Activations = Literal["static", "dynamic", "float"]
Granularity = Literal["tensor", "channel"]
Rounding = Literal["nearest", "gptq", "compensated"]
Cost = Literal["divergence", "noise", "error", "median"]
Storage = Literal["packed", "standard"]
Kernels = Literal["stock", "packed"]
Tier = Literal["default", "paper"]
Accounting = Literal["true", "paper"]
Calibration = Literal["min-max", "cosine", "hessian"]

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
FORMAT_VERSION = 1


def rounded(value: float) -> float:
    """The value at seven significant digits: what every pass puts into a plan, so that its JSON is exact."""
    return float(f"{value:.7g}")


@dataclass(frozen=True)
class Range:
    """Interval of an activation, mapped on the 256 codes of an asymmetric unsigned 8-bit grid.

    The textbook form scale = (high - low) / 255, not the (high - low) / 2^(b-1) printed in the paper, which
    leaves half of the codes unused.
    """

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Step of the grid; the interval is widened to contain zero, so that zero is exact."""
        return max((max(self.high, 0.0) - min(self.low, 0.0)) / 255.0, 1e-12)

    @property
    def zero_point(self) -> int:
        """Code of the value zero."""
        return max(0, min(255, round(-min(self.low, 0.0) / self.scale)))


@dataclass(frozen=True)
class SitePlan:
    """What is decided for one site.

    Attributes:
        site: Name of the site.
        bits: Width of a weight, 2 to 8; None keeps full precision (stored as float16).
        granularity: One weight scale per tensor or per output channel.
        activations: `static` (8-bit, calibrated range), `dynamic` (8-bit, range of each call) or `float`.
        rounding: How weights are rounded to codes: each to the `nearest`; by `gptq` so that the site's
            output on the calibration clips is kept, with steps of its own; or `compensated`, by GPTQ so that
            it also makes good part of what the sites before it lost.
        clip: Of rounding to nearest: step = clip * max|W| / (2^(bits-1) - 0.5), the maximum over the tensor
            or the channel.
        input_range: Calibrated range of the input, for `static`.
        output_range: Calibrated range of the output, for a `static` conv1d whose kernel writes 8 bits
            (`stock` kernels do, `packed` ones write floats).
        score: Sensitivity that the allocation used.
        costs: What the share group of the site costs at each of `WIDTHS`, in units that the allocation alone
            compares; the same for every member.
        reason: Why this width, in words.
        stored_bytes: Bytes that the site takes in the target's files: codes, scales and graph.
    """

    site: str
    bits: int | None
    granularity: Granularity = "channel"
    activations: Activations = "static"
    rounding: Rounding = "nearest"
    clip: float = 1.0
    input_range: Range | None = None
    output_range: Range | None = None
    score: float | None = None
    costs: tuple[float, ...] | None = None
    reason: str = ""
    stored_bytes: int = 0

    def replace(self, **changes: object) -> SitePlan:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class QuantPlan:
    """Decisions for every site of one model, and what they will cost.

    Attributes:
        model: Name of the checkpoint; `fingerprint`: its SHA-256.
        target: Runtime that the bytes were counted for.
        method: How the plan was made, as `option=value` words that the passes set by `noting`.
        budget: Ceiling in bytes, or None.
        fixed_bytes: Bytes that no width changes: graph, biases, norms, processor.
        sites: One entry per site, in execution order.
        tier: Quantiser tier: `default` (per output channel) or `paper` (as the released code, see `policy`).
        accounting: What the budget bounds: `true` bytes of the bundle, or the `paper`'s formula.
        storage: `packed` (n bits a weight at every width) or `standard` (the integer types that the target's
            format has, a width that it lacks in the next wider one).
        kernels: `stock` (the operators of the target's runtime) or `packed` (bitvox's operator library, which
            computes on packed weights where they lie in memory).
    """

    model: str
    fingerprint: str
    target: str
    method: str
    budget: int | None
    fixed_bytes: int
    sites: tuple[SitePlan, ...]
    tier: Tier = "default"
    accounting: Accounting = "true"
    storage: Storage = "packed"
    kernels: Kernels = "stock"

    @property
    def total_bytes(self) -> int:
        """Predicted size of the bundle."""
        return self.fixed_bytes + sum(site.stored_bytes for site in self.sites)

    def computes_packed(self, entry: SitePlan) -> bool:
        """Whether a site's kernel multiplies its packed weight with 8-bit activations."""
        return self.kernels == "packed" and entry.bits is not None and entry.activations != "float"

    def site(self, name: str) -> SitePlan:
        """The entry of that site; KeyError if there is none."""
        for site in self.sites:
            if site.site == name:
                return site
        raise KeyError(name)

    def replace(self, **changes: object) -> QuantPlan:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def noting(self, **options: object) -> QuantPlan:
        """A copy whose `method` also says these options; one that was said before is replaced."""
        said = dict(word.split("=", 1) for word in self.method.split() if "=" in word)
        said.update({name: str(value) for name, value in options.items()})
        return self.replace(method=" ".join(f"{name}={value}" for name, value in said.items()))
