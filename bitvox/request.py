"""What `compile`, `plan` and `sweep` are asked for, and what a compile reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bitvox.compiler.passes.plan import Activations, Calibration, Cost, Kernels, Rounding, Storage, Tier
from bitvox.errors import InputError, RequestError

if TYPE_CHECKING:
    from bitvox.compiler.frontend.model import SpeechModel
    from bitvox.compiler.passes.plan import QuantPlan
    from bitvox.exporters.manifest import Agreement

Target = Literal["onnx", "executorch"]
Method = Literal["auto", "myqasr", "uniform"]
Effort = Literal["quick", "normal", "max"]
Order = Literal["ascending", "descending", "shuffled", "min-max"]
Reduction = Literal["median", "mean", "std", "max", "abs-max", "q90", "q99", "kl", "l1", "l2", "frobenius"]


DECIDED_BY_PLAN = (
    "method",
    "cost",
    "effort",
    "rounding",
    "order",
    "reduction",
    "tier",
    "activations",
    "storage",
    "kernels",
)
"""Fields of a request that a plan to follow has settled."""


def beside_plan(plan: Path, given: Sequence[str]) -> InputError:
    """The error for options that a plan to follow leaves no choice of."""
    return InputError(
        f"plan {plan}: has decided {', '.join(given)}; leave {'it' if len(given) == 1 else 'them'} out, "
        "or make another plan"
    )


@dataclass(frozen=True)
class CompileRequest:
    """One model, one voice, one ceiling in bytes.

    Attributes:
        model: Hub id, local folder in the hub's layout, or a model that ships with bitvox (`reference-ctc`,
            `reference-whisper`, `reference-keywords`); or a model that is loaded.
        audio: Folder of the voice's unlabelled recordings, or one recording.
        generic: Folder of unlabelled recordings of anyone, for what is learnt from `audio` to be mixed with:
            a user's seconds are few. None mixes nothing.
        own_share: Weight of what `audio` says in that mixture, 0 to 1; None is chosen on recordings of
            `audio` that are held out for it.
        budget: Ceiling on the bytes of the bundle; None where `plan` decides.
        out: Folder of the bundle; None where only a plan is wanted.
        target: Runtime that will run the bundle.
        plan: A plan to follow instead of making one; what `DECIDED_BY_PLAN` names is left at its default
            then, or InputError says so.
        method: How widths are allocated: `auto` to the least cost under the budget, `myqasr` as the paper
            has it, `uniform` to one width for all.
        cost: What `auto` measures a width by; None is what the effort says.
        effort: How much time `auto` takes.
        rounding: How weights are rounded to codes; None is what is usual for the method.
        order: Order in which `myqasr` lowers widths.
        reduction: What a site's sensitivity pools its output by; of `kl`, `l1`, `l2`, `frobenius` how far
            the model's output moves with that site alone at 4 bits.
        calibration: How ranges and scales are found.
        tier: `default` (a scale per output channel) or `paper` (one per tensor).
        activations: How the inputs of integer kernels are quantised.
        storage: `packed` (n bits a weight at every width) or `standard` (ONNX's own INT2, INT4, INT8).
        kernels: `stock` (the runtime's own operators) or `packed` (bitvox's operator library, which computes
            on packed weights where they lie in memory); None is what is usual for the target.
        allow_float: Accept a site that was meant for integer arithmetic and runs in float.
        clips: Most clips to calibrate with; None is as many as the effort has time for.
        seed: Of everything that is drawn.
    """

    model: str | SpeechModel
    audio: Path | None = None
    budget: int | None = None
    out: Path | None = None
    target: Target = "onnx"
    plan: Path | None = None
    method: Method = "auto"
    cost: Cost | None = None
    effort: Effort = "normal"
    rounding: Rounding | None = None
    order: Order = "ascending"
    reduction: Reduction = "median"
    calibration: Calibration = "min-max"
    tier: Tier = "default"
    activations: Activations = "static"
    storage: Storage = "packed"
    kernels: Kernels | None = None
    allow_float: bool = False
    clips: int | None = None
    seed: int = 0
    generic: Path | None = None
    own_share: float | None = None

    def __post_init__(self) -> None:
        if self.method == "auto" and self.tier == "paper":
            raise InputError("tier paper: is myqasr's as published; with method auto use tier default")
        if self.method == "auto" and self.order != "ascending":
            raise InputError(f"order {self.order}: is one of myqasr's; with method auto leave it out")
        if self.own_share is not None and self.generic is None:
            raise InputError("own_share: nothing to share with; name recordings of others with generic")
        if self.own_share is not None and not 0 <= self.own_share <= 1:
            raise InputError(f"own_share {self.own_share}: is a weight from 0 to 1")
        if self.plan is None:
            return
        defaults = {field.name: field.default for field in fields(self)}
        given = [name for name in DECIDED_BY_PLAN if getattr(self, name) != defaults[name]]
        if given:
            raise beside_plan(self.plan, given)

    @property
    def chosen_rounding(self) -> Rounding:
        """`rounding`, or what is usual for the method."""
        return self.rounding or ("compensated" if self.method == "auto" else "nearest")

    @property
    def chosen_kernels(self) -> Kernels:
        """`kernels`, or what is usual for the target."""
        from bitvox.exporters.targets import USUAL_KERNELS

        return self.kernels or USUAL_KERNELS[self.target]


@dataclass(frozen=True)
class CompileReport:
    """What was written and what was seen when it was run.

    Attributes:
        out: Folder of the bundle.
        bytes: Its size, by os.stat of its files; `budget`: the ceiling that it is under.
        paper_bytes: Its size by the accounting of the paper's figure, for comparison with that alone.
        average_bits: Mean width of the quantised weights.
        plan: The plan that was followed.
        kernels: Kernel of the runtime that each site reached.
        parity: Worst relative difference of a site's output from the quantised torch model, on real audio.
        agreement: Judgement on clips that were not calibrated with; None where there were none.
        unit: What the agreement counts.
        seconds: Wall time of the compile.
        peak_memory: Largest resident set of the process since planning began, in bytes; since the process
            began where the system does not let that be told apart, None where it tells nothing.
    """

    out: Path
    bytes: int
    budget: int | None
    paper_bytes: int
    average_bits: float
    plan: QuantPlan
    kernels: dict[str, str]
    parity: float
    agreement: Agreement | None
    unit: Literal["words", "labels"]
    seconds: float
    peak_memory: int | None


@dataclass(frozen=True)
class SweepReport:
    """What a sweep wrote.

    Attributes:
        reports: One for each budget that was met, in the order of the budgets.
        unreachable: Budget -> why there is no bundle, with the nearest budget that there is one for.
    """

    reports: tuple[CompileReport, ...]
    unreachable: dict[int, str]

    def all(self) -> tuple[CompileReport, ...]:
        """The reports; RequestError with the first reason where a budget was not met."""
        for reason in self.unreachable.values():
            raise RequestError(reason)
        return self.reports
