"""Calibration that is searched once per unit and width, however many plans ask for it.

`CalibratePass` looks at full-precision inputs, so what it finds for a share group depends on that group's
width alone. Sixty plans of one model differ in a few widths each: keeping what was found per (group, width)
gives the same plans in a fraction of the time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from bitvox.code_version import code_version
from bitvox.compiler.frontend.model import Site
from bitvox.compiler.frontend.threads import single_threaded
from bitvox.compiler.passes.base import PassContext
from bitvox.compiler.passes.calibrate import CalibratePass
from bitvox.compiler.passes.plan import QuantPlan, Range, SitePlan
from bitvox.request import Calibration
from bitvox.store import FileStore

_Group = tuple[Site, ...]


def calibrate_by_unit(
    context: PassContext, plan: QuantPlan, method: Calibration, seed: int, store: FileStore
) -> QuantPlan:
    """What `CalibratePass(method, seed)` makes of a plan with widths; what the store has is not searched."""
    groups = [group for group in context.model.share_groups() if plan.site(group[0].name).bits is not None]
    base = _base(context, method, seed)
    keys = {group: _key(base, [plan.site(site.name) for site in group]) for group in groups}
    kept = {group: text for group, key in keys.items() if (text := store.get(key)) is not None}
    missing = [group for group in groups if group not in kept]
    if missing:
        with single_threaded():
            calibrated = CalibratePass(method, seed).run(context, _only(plan, missing))
        for group in missing:
            kept[group] = json.dumps([_found(calibrated.site(site.name)) for site in group])
            store.put(keys[group], kept[group])
    found = {
        site.name: entry
        for group, text in kept.items()
        for site, entry in zip(group, json.loads(text), strict=True)
    }
    sites = tuple(_with(entry, found[entry.site]) if entry.site in found else entry for entry in plan.sites)
    return plan.replace(sites=sites).noting(calibration=method)


def _only(plan: QuantPlan, groups: Sequence[_Group]) -> QuantPlan:
    """The plan with all but those groups at full precision, which calibration passes by."""
    wanted = {site.name for group in groups for site in group}
    return plan.replace(
        sites=tuple(
            entry if entry.site in wanted else entry.replace(bits=None, activations="float")
            for entry in plan.sites
        )
    )


def _base(context: PassContext, method: str, seed: int) -> str:
    words = ("unit calibration", code_version("torch"), context.model.fingerprint, method, str(seed))
    digest = hashlib.sha256("\0".join(words).encode())
    for samples in context.clips:
        digest.update(samples.tobytes())
    return digest.hexdigest()


def _key(base: str, entries: Sequence[SitePlan]) -> str:
    words = [(entry.site, entry.bits, entry.granularity, entry.activations) for entry in entries]
    return hashlib.sha256(f"{base}\0{json.dumps(words)}".encode()).hexdigest()


def _found(entry: SitePlan) -> dict[str, Any]:
    return {
        "clip": entry.clip,
        "input_range": entry.input_range and [entry.input_range.low, entry.input_range.high],
        "output_range": entry.output_range and [entry.output_range.low, entry.output_range.high],
    }


def _with(entry: SitePlan, found: dict[str, Any]) -> SitePlan:
    spans = {name: found[name] and Range(*found[name]) for name in ("input_range", "output_range")}
    return entry.replace(clip=found["clip"], **spans)
