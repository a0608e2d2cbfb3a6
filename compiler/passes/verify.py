"""What must hold of every plan, and the facts that passes establish one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.passes.bytes import paper_bytes
from bitvox.compiler.passes.plan import WIDTHS, Kernels, QuantPlan, SitePlan
from bitvox.errors import InputError

Fact = Literal["scores", "costs", "widths", "ranges"]
FACTS: tuple[Fact, ...] = ("scores", "costs", "widths", "ranges")


def verify_plan(model: SpeechModel, plan: QuantPlan, facts: Iterable[Fact] = ()) -> None:
    """Check a plan against the model that it is for.

    Always: every site once, in order; widths storable; sites of a share group agree; numbers finite; storage
        that the kernels can read. With
        facts: `scores` every quantised site has a score, `costs` it has costs of all widths, `widths` the
        widths were allocated and fit the budget, `ranges` every static site has the ranges that its integer
        kernel needs.

    Raises InputError, one line that names the site and what would be right.
    """
    _verify_sites(model, plan)
    if plan.kernels == "packed" and plan.storage != "packed":
        raise InputError(
            f"storage {plan.storage}: packed kernels do not read it; choose storage packed, or stock kernels"
        )
    for site, entry in zip(model.sites, plan.sites, strict=True):
        _verify_entry(site, entry, plan.kernels)
    for group in model.share_groups():
        _verify_group([plan.site(site.name) for site in group])
    for fact in facts:
        _CHECKS[fact](model, plan)


def established_facts(model: SpeechModel, plan: QuantPlan) -> frozenset[Fact]:
    """Facts that already hold of a plan, for instance of one that was read from a file."""

    def holds(fact: Fact) -> bool:
        try:
            _CHECKS[fact](model, plan)
        except InputError:
            return False
        return True

    return frozenset(fact for fact in FACTS if holds(fact))


def _verify_sites(model: SpeechModel, plan: QuantPlan) -> None:
    if plan.fingerprint != model.fingerprint:
        raise InputError(
            f"plan for {plan.model} ({plan.fingerprint[:12]}): the checkpoint {model.source} is another one "
            f"({model.fingerprint[:12]}); make a new plan for it"
        )
    planned, present = [entry.site for entry in plan.sites], [site.name for site in model.sites]
    if planned == present:
        return
    for name in planned:
        if name not in present:
            raise InputError(
                f"plan site {name}: {model.source} has no such site; `bitvox inspect` lists them"
            )
        if planned.count(name) > 1:
            raise InputError(
                f"plan site {name}: planned {planned.count(name)} times, each site has one entry"
            )
    for name in present:
        if name not in planned:
            raise InputError(f"plan: no entry for site {name}; every site of the model needs one")
    raise InputError("plan: sites are out of order; list them in the order in which the model runs them")


def _verify_entry(site: Site, entry: SitePlan, kernels: Kernels) -> None:
    where = f"plan site {site.name}"
    if entry.bits is not None and entry.bits not in WIDTHS:
        raise InputError(f"{where}: bits {entry.bits} is no width; use 2 to 8, or null for full precision")
    if entry.bits is None and entry.activations != "float":
        raise InputError(f"{where}: full precision needs activations float, not {entry.activations}")
    if entry.rounding != "nearest" and entry.granularity != "channel":
        raise InputError(
            f"{where}: rounding {entry.rounding} finds a step per output channel; use granularity channel"
        )
    if site.operator == "conv1d" and entry.activations == "dynamic" and kernels == "stock":
        raise InputError(
            f"{where}: a conv1d takes activations static or float with stock kernels, not dynamic"
        )
    if not (math.isfinite(entry.clip) and 0 < entry.clip <= 2):
        raise InputError(f"{where}: clip {entry.clip} is not in (0, 2]")
    if entry.score is not None and not math.isfinite(entry.score):
        raise InputError(f"{where}: score {entry.score} is not finite")
    if entry.stored_bytes < 0:
        raise InputError(f"{where}: stored_bytes {entry.stored_bytes} is negative")
    for name, span in (("input_range", entry.input_range), ("output_range", entry.output_range)):
        if span and not (math.isfinite(span.low) and math.isfinite(span.high) and span.low < span.high):
            raise InputError(
                f"{where}: {name} [{span.low}, {span.high}] needs two finite ends, low below high"
            )


def _verify_group(entries: list[SitePlan]) -> None:
    first = entries[0]
    for other in entries[1:]:
        for field in ("bits", "rounding", "activations", "input_range", "costs"):
            mine, theirs = getattr(other, field), getattr(first, field)
            if mine != theirs:
                raise InputError(
                    f"plan site {other.site}: {field} {mine} differs from {theirs} of {first.site}; "
                    f"they read one input and must agree"
                )


def _verify_scores(model: SpeechModel, plan: QuantPlan) -> None:
    for entry in plan.sites:
        if entry.bits is not None and entry.score is None:
            raise InputError(f"plan site {entry.site}: no score; measure the sensitivity first")


def _verify_costs(model: SpeechModel, plan: QuantPlan) -> None:
    for entry in plan.sites:
        if entry.bits is not None and entry.costs is None:
            raise InputError(f"plan site {entry.site}: no costs; measure them first")


def _verify_widths(model: SpeechModel, plan: QuantPlan) -> None:
    if plan.budget is None:
        raise InputError("plan: no budget, so its widths were not allocated; allocate them first")
    size = plan.total_bytes if plan.accounting == "true" else paper_bytes(model, plan)
    if size > plan.budget:
        raise InputError(
            f"plan: {size} bytes by {plan.accounting} accounting exceed its budget of {plan.budget}"
        )


def _verify_ranges(model: SpeechModel, plan: QuantPlan) -> None:
    if all(entry.activations != "static" for entry in plan.sites) and "calibration=" not in plan.method:
        raise InputError("plan: not calibrated; calibrate first, its weight steps may need the clips too")
    for site, entry in zip(model.sites, plan.sites, strict=True):
        if entry.activations != "static":
            continue
        if entry.input_range is None:
            raise InputError(
                f"plan site {entry.site}: static activations need an input_range; calibrate first"
            )
        if site.operator == "conv1d" and plan.kernels == "stock" and entry.output_range is None:
            raise InputError(
                f"plan site {entry.site}: a static conv1d needs an output_range; calibrate first"
            )


_CHECKS: dict[Fact, Callable[[SpeechModel, QuantPlan], None]] = {
    "scores": _verify_scores,
    "costs": _verify_costs,
    "widths": _verify_widths,
    "ranges": _verify_ranges,
}
