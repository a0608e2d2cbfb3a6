"""Codes of the sites whose rounding looks at the clips.

A plan says which rounding a site gets; its codes are no part of the plan, as they are none where weights are
rounded to nearest. They follow from checkpoint, clips, width and rounding alone, and are kept under a key
made of those: plans that give a share group the same width share them, and an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.frontend.threads import side_by_side, single_threaded
from bitvox.compiler.passes.base import PassContext, clips_digest
from bitvox.compiler.passes.gptq import RoundedGroup, round_group
from bitvox.compiler.passes.input_moments import gather_moments
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.compiler.passes.quantizer import RoundedSite

_Group = tuple[Site, ...]


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
    keys = {group: _key(base, plan, group) for group in groups}
    found = {group: kept for group in groups if (kept := _kept(store, keys[group])) is not None}
    missing = [group for group in groups if group not in found]
    if missing:
        for group, rounded in _round(context, plan, missing):
            found[group] = rounded
            if store is not None:
                store.put_bytes(keys[group], save(_tensors(rounded)))
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


def _key(base: str, plan: QuantPlan, group: _Group) -> str:
    entry = plan.site(group[0].name)
    words = (base, "rounded", *(site.name for site in group), str(entry.bits), entry.rounding)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _round(
    context: PassContext, plan: QuantPlan, groups: list[_Group]
) -> Iterable[tuple[_Group, RoundedGroup]]:
    done = itertools.count(1)
    with single_threaded() as threads:
        moments = gather_moments(context, groups, "measure inputs")

        def rounded(group: _Group) -> RoundedGroup:
            entry = plan.site(group[0].name)
            assert entry.bits is not None
            weights = [context.model.site_module(site).weight for site in group]
            result = round_group(weights, (entry.bits,), moments[group[0].share_group], entry.rounding)
            context.progress("round weights", next(done), len(groups))
            return result[entry.bits]

        return list(zip(groups, side_by_side(rounded, groups, threads), strict=True))


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
