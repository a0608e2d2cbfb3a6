"""What runs every site? Read from the program that was written, not from what was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitvox.compiler.frontend.model import Site
from bitvox.compiler.passes.plan import QuantPlan
from bitvox.errors import RequestError
from bitvox.exporters.executorch.graph import SiteForm, filters_waveform, float_type
from bitvox.exporters.executorch.program import (
    LOOKUP,
    NAMESPACE,
    PackedConstant,
    Program,
    constant_of,
    kernel_calls,
)
from bitvox.exporters.onnx.resident import aligned

DELEGATE = "XnnpackBackend"

# What multiplies with a tied weight where bitvox's operators do not, see `tied`.
TIED_KERNEL = "aten::mm"


def kernels_reached(
    program: Program, forms: Sequence[SiteForm], constants: Mapping[int, PackedConstant]
) -> dict[str, str]:
    """Site -> what runs it in every method of the program: `bitvox::linear`, or the delegate.

    A site whose weight is an argument of one of ExecuTorch's own kernels has reached that kernel. One whose
    weight no kernel is given is inside the delegate, which holds its weights itself.

    Raises:
        RequestError: A packed weight is not in the program just once, or methods run a site differently.
    """
    callers = _callers(program)
    position_of = _positions(program)
    reached = {}
    for index, form in enumerate(forms):
        weight = constants[index].weight if index in constants else _own_weight(form, bool(constants))
        # A program that was read holds what pads a constant, too.
        padded = weight.ljust(aligned(len(weight)), b"\0")
        positions = [at for stored in {weight, padded} for at in position_of.get(stored, [])]
        if index in constants and len(positions) != 1:
            raise RequestError(
                f"site '{form.site.name}': its weight is in the program {len(positions)} times"
            )
        found = {name for position in positions for name in callers.get(position, ())}
        if form.site.tied and index not in constants:
            found = {TIED_KERNEL}
        if len(found) > 1:
            raise RequestError(
                f"site '{form.site.name}': runs as {' and '.join(sorted(found))} in one program"
            )
        reached[form.site.name] = found.pop() if found else DELEGATE
    return reached


def in_float(reached: Mapping[str, str], plan: QuantPlan) -> list[str]:
    """Sites that were meant to compute in integers and run in float."""
    return [
        entry.site
        for entry in plan.sites
        if entry.bits is not None
        and entry.activations != "float"
        and not reached[entry.site].startswith((NAMESPACE, DELEGATE))
    ]


def longest_kernel(site: Site, plan: QuantPlan) -> str:
    """The longest name that `kernels_reached` gives a site of this plan."""
    entry = plan.site(site.name)
    if plan.computes_packed(entry):
        return f"{NAMESPACE}{site.operator}"
    if plan.kernels == "packed" and filters_waveform(site):
        return f"{NAMESPACE}wave_conv1d"
    return DELEGATE


def _callers(program: Program) -> dict[int, set[str]]:
    """Kernels that are given each constant, by its position."""
    callers: dict[int, set[str]] = {}
    for plan in program.file.program.execution_plan:
        for name, call in kernel_calls(plan):
            for value in call.args:
                position = constant_of(plan, value)
                if position is not None and name != LOOKUP:
                    callers.setdefault(position, set()).add(name.removesuffix(".out"))
    return callers


def _positions(program: Program) -> dict[bytes, list[int]]:
    positions: dict[bytes, list[int]] = {}
    for position, buffer in enumerate(program.file.program.constant_buffer):
        positions.setdefault(bytes(buffer.storage), []).append(position)
    return positions


def _own_weight(form: SiteForm, packed: bool) -> bytes:
    """What a kernel of the program's would be given, had the delegate not taken the site."""
    if form.stock is not None:
        return form.stock.codes.numpy().tobytes()
    assert form.weight is not None
    return form.weight.astype(float_type(form.site, "packed" if packed else "stock")).tobytes()
