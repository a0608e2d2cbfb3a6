"""What a pass is, and `Sequential`, which runs passes one after the other and can resume."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import Protocol

from bitvox.code_version import code_version
from bitvox.compiler.frontend.model import FloatArray, SpeechModel
from bitvox.compiler.frontend.threads import single_threaded
from bitvox.compiler.passes.bytes import ByteCosts
from bitvox.compiler.passes.plan import WIDTHS, QuantPlan
from bitvox.compiler.passes.plan_json import plan_from_json, plan_to_json
from bitvox.compiler.passes.verify import Fact, established_facts, verify_plan
from bitvox.errors import InputError
from bitvox.progress import Progress, no_progress


class ByteStore(Protocol):
    """Where finished tensors are kept between runs."""

    def get_bytes(self, key: str) -> bytes | None:
        """The value kept under a key, if any."""
        ...

    def put_bytes(self, key: str, value: bytes) -> None:
        """Keep a value, whole or not at all."""
        ...


class Store(Protocol):
    """Where finished work is kept between runs."""

    def get(self, key: str) -> str | None:
        """The value kept under a key, if any."""
        ...

    def put(self, key: str, value: str) -> None:
        """Keep a value, whole or not at all."""
        ...


class WholeStore(Store, ByteStore, Protocol):
    """Where texts and tensors are kept."""


@dataclass(frozen=True)
class Generic:
    """Clips of anyone, for what is learnt from the user's to be mixed with.

    What they teach alone does not depend on the user: it is found once, and kept.

    Attributes:
        clips: Float32 samples [T] each, at the model's rate.
        share: Weight of what the user's clips say, between 0 and 1; that of these is the rest.
        store: Where what these clips taught is kept; None keeps nothing.
    """

    clips: tuple[FloatArray, ...]
    share: float
    store: WholeStore | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share {self.share}: mixes nothing; take the clips of one side alone")


@dataclass(frozen=True)
class PassContext:
    """What passes read and never change.

    Attributes:
        model: The prepared checkpoint.
        clips: Calibration clips, float32 samples [T] each, at the model's rate.
        costs: What the target charges in bytes.
        progress: Told how far the work is.
        threads: Most computations that a pass may have under way at once, each on one thread; it never
            changes a result.
        generic: Other clips that what `clips` teach is mixed with, see `personalise`; None mixes nothing.
    """

    model: SpeechModel
    clips: tuple[FloatArray, ...]
    costs: ByteCosts
    progress: Progress = no_progress
    threads: int = 1
    generic: Generic | None = None

    def of_generic(self) -> PassContext:
        """The generic clips in the place of the user's, with nothing to mix them with."""
        assert self.generic is not None
        return dataclasses.replace(self, clips=self.generic.clips, generic=None)

    def beginning(self, seconds: float) -> PassContext:
        """The first of the user's clips, whole, that last no longer than that together, and at least one."""
        most = seconds * self.model.processor.sampling_rate
        count = sum(end <= most for end in itertools.accumulate(samples.size for samples in self.clips))
        return dataclasses.replace(self, clips=self.clips[: max(count, 1)])

    def of_user(self) -> PassContext:
        """The user's clips alone."""
        return dataclasses.replace(self, generic=None)


class Pass(Protocol):
    """One refinement of a plan: a frozen dataclass whose fields are its options."""

    @property
    def name(self) -> str:
        """Name of the pass, stable across versions."""
        ...

    @property
    def counts_bytes(self) -> bool:
        """Whether it reads what the target charges. The results of others serve every target."""
        ...

    @property
    def requires(self) -> frozenset[Fact]:
        """Facts that must hold of the plan that it is given."""
        ...

    @property
    def ensures(self) -> frozenset[Fact]:
        """Facts that hold of the plan that it returns."""
        ...

    def run(self, context: PassContext, plan: QuantPlan) -> QuantPlan:
        """The refined plan."""
        ...


@dataclass(frozen=True)
class Sequential:
    """Passes in order. The plan is verified after each; a finished pass is kept and not run again.

    Passes compute on one thread (see `threads`), so that a plan does not depend on how many there are.
    """

    passes: tuple[Pass, ...]

    def run(self, context: PassContext, plan: QuantPlan, store: Store | None = None) -> QuantPlan:
        """The plan after all passes.

        With a store, the result of each pass is kept as soon as it is verified, so that an interrupted run,
        Ctrl-C included, repeats at most the pass it was in.

        Raises InputError before any work if a pass needs a fact that no earlier one establishes, or if the
        plan does not fit the model.
        """
        verify_plan(context.model, plan)
        facts = established_facts(context.model, plan)
        self._check_contracts(facts)
        kinds = {step.counts_bytes for step in self.passes} if store is not None else set()
        bases = {counts: _digest(context, plan, counts) for counts in kinds}
        for step in self.passes:
            given = plan if step.counts_bytes else _for_any_target(plan)
            key = _key(bases[step.counts_bytes], step, given) if store is not None else ""
            kept = _load(store, key) if store is not None else None
            result = kept or _run(step, context, given)
            refined = result if step.counts_bytes else _for_target_of(plan, result)
            facts |= step.ensures
            verify_plan(context.model, refined, facts)
            if store is not None and kept is None:
                store.put(key, plan_to_json(result))
            plan = refined
        return plan

    def _check_contracts(self, facts: frozenset[Fact]) -> None:
        for step in self.passes:
            missing = sorted(step.requires - facts)
            if missing:
                raise InputError(
                    f"pass {step.name}: needs {', '.join(missing)}, which no pass before it provides"
                )
            facts |= step.ensures


def _run(step: Pass, context: PassContext, plan: QuantPlan) -> QuantPlan:
    costs = context.costs if step.counts_bytes else _Uncounted(step.name)
    with single_threaded() as threads:
        # A pass may run others, inside the block of its own.
        threads = max(threads, context.threads)
        return step.run(dataclasses.replace(context, costs=costs, threads=threads), plan)


@dataclass(frozen=True)
class _Uncounted:
    """The costs that a pass sees which says that it counts no bytes."""

    step: str

    @property
    def fixed(self) -> int:
        raise TypeError(f"pass {self.step}: counts bytes, which it says it does not")

    def site(self, *_asked: object) -> int:
        raise TypeError(f"pass {self.step}: counts bytes, which it says it does not")


def _for_any_target(plan: QuantPlan) -> QuantPlan:
    """The plan without what only its target says."""
    sites = tuple(entry.replace(stored_bytes=0) for entry in plan.sites)
    return plan.replace(target="", kernels="stock", storage="packed", fixed_bytes=0, sites=sites)


def _for_target_of(plan: QuantPlan, found: QuantPlan) -> QuantPlan:
    """What was found without a target, with what the plan's target says."""
    sites = tuple(
        entry.replace(stored_bytes=own.stored_bytes)
        for entry, own in zip(found.sites, plan.sites, strict=True)
    )
    return found.replace(
        target=plan.target,
        kernels=plan.kernels,
        storage=plan.storage,
        fixed_bytes=plan.fixed_bytes,
        sites=sites,
    )


def _load(store: Store, key: str) -> QuantPlan | None:
    text = store.get(key)
    if text is None:
        return None
    try:
        return plan_from_json(text, f"cached plan {key[:12]}")
    except InputError:
        return None


def _key(base: str, step: Pass, plan: QuantPlan) -> str:
    options = dataclasses.asdict(step)  # type: ignore[call-overload]
    words = (base, step.name, json.dumps(options, sort_keys=True), plan_to_json(plan))
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _digest(context: PassContext, plan: QuantPlan, counts_bytes: bool) -> str:
    """SHA-256 over what a result depends on beside pass and plan: `clips_digest`, and costs if they count."""
    if not counts_bytes:
        return clips_digest(context)
    digest = hashlib.sha256(f"{clips_digest(context)}\0{context.costs.fixed}".encode())
    for site, entry in zip(context.model.sites, plan.sites, strict=True):
        sizes = [context.costs.site(site, b, entry.granularity, entry.activations) for b in (*WIDTHS, None)]
        digest.update(repr(sizes).encode())
    return digest.hexdigest()


def clips_digest(context: PassContext) -> str:
    """SHA-256 over what was learnt from the clips depends on: code, model, clips, what they mix with."""
    code = code_version("torch", "transformers", "numpy")
    digest = hashlib.sha256(f"{code}\0{context.model.fingerprint}".encode())
    for clip in context.clips:
        digest.update(str(clip.size).encode() + b"\0" + clip.astype("<f4").tobytes())
    if context.generic is not None:
        digest.update(f"{context.generic.share!r} {clips_digest(context.of_generic())}".encode())
    return digest.hexdigest()
