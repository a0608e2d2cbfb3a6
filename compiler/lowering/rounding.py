"""Codes of the sites whose rounding looks at the clips.

A plan says which rounding a site gets; its codes are no part of the plan, as they are none where weights are
rounded to nearest. They follow from checkpoint, clips, width and rounding alone (and, where what earlier
sites lost is made good, from how those are rounded), and are kept under a key made of those: plans that give
a share group the same width share them, and an interrupted run goes on.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.frontend.threads import side_by_side, single_threaded
from bitvox.compiler.passes.base import PassContext, clips_digest
from bitvox.compiler.passes.drift import walking_together
from bitvox.compiler.passes.gptq import RoundedGroup, round_group
from bitvox.compiler.passes.group_roundings import put_weights
from bitvox.compiler.passes.input_moments import gather_moments
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import RoundedSite, dequantised_weight

_Group = tuple[Site, ...]
_Keep = Callable[[_Group, RoundedGroup], None]


class ByteStore(Protocol):
    """Where finished groups are kept between runs."""

    def get_bytes(self, key: str) -> bytes | None:
        """The value kept under a key, if any."""
        ...

    def put_bytes(self, key: str, value: bytes) -> None:
        """Keep a value, whole or not at all."""
        ...


def round_sites(
    context: PassContext, plan: QuantPlan, store: ByteStore | None = None
) -> dict[str, RoundedSite]:
    """What each site stores whose rounding is not to nearest, by name.

    Each is computed on one thread, so that codes do not depend on how many threads there are.

    Raises:
        InputError: No clips, or an activation that is not finite.
    """
    groups = [group for group in context.model.share_groups() if _looks_at_clips(plan, group)]
    base = clips_digest(context)
    keys = {group: _key(base, context.model, plan, group) for group in groups}
    found = {group: kept for group in groups if (kept := _kept(store, keys[group])) is not None}
    missing = [group for group in groups if group not in found]

    def keep(group: _Group, rounded: RoundedGroup) -> None:
        found[group] = rounded
        if store is not None:
            store.put_bytes(keys[group], save(_tensors(rounded)))

    with single_threaded() as threads:
        context = dataclasses.replace(context, threads=threads)
        _round_apart(context, plan, [one for one in missing if not _compensates(plan, one)], keep)
        if any(_compensates(plan, one) for one in missing):
            _round_in_order(context, plan, found, keep)
    return {
        site.name: RoundedSite(codes, steps, _bias(context, site))
        for group, rounded in found.items()
        for site, codes, steps in zip(group, rounded.codes, rounded.steps, strict=True)
    }


def _bias(context: PassContext, site: Site) -> Tensor | None:
    bias = context.model.site_module(site).bias
    return None if bias is None else bias.detach()


def _looks_at_clips(plan: QuantPlan, group: _Group) -> bool:
    entry = plan.site(group[0].name)
    return entry.bits is not None and entry.rounding != "nearest"


def _compensates(plan: QuantPlan, group: _Group) -> bool:
    entry = plan.site(group[0].name)
    return entry.bits is not None and entry.rounding == "compensated"


def _key(base: str, model: SpeechModel, plan: QuantPlan, group: _Group) -> str:
    entry = plan.site(group[0].name)
    words = [base, "rounded", *(site.name for site in group), str(entry.bits), entry.rounding]
    if _compensates(plan, group):
        for site in itertools.takewhile(lambda site: site != group[0], model.sites):
            earlier = plan.site(site.name)
            words += [str(earlier.bits), earlier.rounding, earlier.granularity, str(earlier.clip)]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _round_apart(context: PassContext, plan: QuantPlan, groups: list[_Group], keep: _Keep) -> None:
    """Groups whose rounding looks at what they read at full precision, in any order."""
    if not groups:
        return
    done = itertools.count(1)
    moments = gather_moments(context, groups, "measure inputs")

    def rounded(group: _Group) -> None:
        entry = plan.site(group[0].name)
        assert entry.bits is not None
        weights = [context.model.site_module(site).weight for site in group]
        result = round_group(weights, (entry.bits,), moments[group[0].share_group], entry.rounding)
        keep(group, result[entry.bits])
        context.progress("round weights", next(done), len(groups))

    side_by_side(rounded, groups, context.threads)


def _round_in_order(
    context: PassContext, plan: QuantPlan, found: Mapping[_Group, RoundedGroup], keep: _Keep
) -> None:
    """Groups that make good what those before them lost: each reads what the ones rounded before it write."""
    groups = list(context.model.share_groups())
    last = max(n for n, one in enumerate(groups) if _compensates(plan, one) and one not in found)
    wanted = [one for one in groups[: last + 1] if _compensates(plan, one) and one not in found]
    changed = copy.deepcopy(context.model.module)
    with walking_together(context, changed, [group[0] for group in wanted]) as walk:
        for number, group in enumerate(groups[: last + 1]):
            if group in wanted:
                moments, drift = walk.reach(group[0])
                entry = plan.site(group[0].name)
                assert entry.bits is not None
                weights = [context.model.site_module(site).weight for site in group]
                result = round_group(weights, (entry.bits,), moments, "gptq", drift, context.threads)
                keep(group, result[entry.bits])
            put_weights(changed, _stored(context, plan, group, found.get(group)))
            context.progress("round weights", number + 1, last + 1)


def _stored(
    context: PassContext, plan: QuantPlan, group: _Group, rounded: RoundedGroup | None
) -> dict[str, Tensor]:
    """The weights that a group will have, by site."""
    if rounded is None:
        originals = ((site, context.model.site_module(site).weight.detach()) for site in group)
        return {site.name: dequantised_weight(weight, plan.site(site.name)) for site, weight in originals}
    parts = zip(group, rounded.codes, rounded.steps, strict=True)
    return {site.name: RoundedSite(codes, steps, None).weight() for site, codes, steps in parts}


def _tensors(rounded: RoundedGroup) -> dict[str, Tensor]:
    members = enumerate(zip(rounded.codes, rounded.steps, strict=True))
    named = {f"{kind}{index}": part for index, pair in members for kind, part in zip("cs", pair, strict=True)}
    return named | {"error": torch.tensor(rounded.error, dtype=torch.float64)}


def _kept(store: ByteStore | None, key: str) -> RoundedGroup | None:
    kept = store.get_bytes(key) if store is not None else None
    if kept is None:
        return None
    tensors = load(kept)
    members = range((len(tensors) - 1) // 2)
    return RoundedGroup(
        codes=tuple(tensors[f"c{index}"] for index in members),
        steps=tuple(tensors[f"s{index}"] for index in members),
        error=float(tensors["error"]),
    )
