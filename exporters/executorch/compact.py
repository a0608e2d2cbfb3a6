"""Equal constants of a method once: emission gives every argument of every call a value of its own.

Numbers, flags, strings and lists of them are most of a program's values. The file holds each method's values
again, so that this is a fifth of what is not weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from executorch.exir.schema import (
    Bool,
    Double,
    EValue,
    ExecutionPlan,
    Int,
    IntList,
    Null,
    OptionalTensorList,
    String,
    TensorList,
)

_SCALARS = (Int, Double, Bool, String, Null)
_LISTS_OF_VALUES = (IntList, TensorList, OptionalTensorList)


def compacted(plan: ExecutionPlan) -> ExecutionPlan:
    """The same method with one value for equal constants and none that nothing uses."""
    plan = copy.copy(plan)
    plan.chains = copy.deepcopy(plan.chains)
    same = _same_constants(plan)
    used = sorted({same[value] for value in _used(plan)} | {same[item] for item in _items(plan)})
    place = {value: position for position, value in enumerate(used)}
    moved = {value: place[same[value]] for value in same if same[value] in place}
    plan.values = [_with_items(plan.values[value], moved) for value in used]
    plan.inputs = [moved[value] for value in plan.inputs]
    plan.outputs = [moved[value] for value in plan.outputs]
    for chain in plan.chains:
        chain.inputs = [moved[value] for value in chain.inputs]
        chain.outputs = [moved[value] for value in chain.outputs]
        for instruction in chain.instructions:
            call: Any = instruction.instr_args
            call.args = [moved[value] for value in call.args]
    return plan


def _same_constants(plan: ExecutionPlan) -> dict[int, int]:
    """Each value -> the first that is the same constant, or itself."""
    written = {call.args[-1] for call in _calls(plan)} | set(plan.inputs) | set(plan.outputs)
    first: dict[tuple[object, ...], int] = {}
    same: dict[int, int] = {}
    for lists in (False, True):  # lists name values, so scalars are known first
        for position, value in enumerate(plan.values):
            if isinstance(value.val, _LISTS_OF_VALUES) != lists:
                continue
            key = _key(value.val, same)
            constant = key is not None and position not in written
            same[position] = first.setdefault(key, position) if constant and key else position
    return same


def _key(value: Any, same: Mapping[int, int]) -> tuple[object, ...] | None:
    if isinstance(value, _SCALARS):
        return (type(value), repr(value))
    if isinstance(value, IntList):
        return (IntList, *(same[item] for item in value.items))
    return None


def _calls(plan: ExecutionPlan) -> list[Any]:
    """Calls of kernels and delegates; whatever else an instruction can be is not emitted for these graphs."""
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    assert all(hasattr(call, "args") for call in calls)
    return calls


def _used(plan: ExecutionPlan) -> set[int]:
    used = {*plan.inputs, *plan.outputs}
    for chain in plan.chains:
        used.update(chain.inputs, chain.outputs)
    return used.union(*(call.args for call in _calls(plan)))


def _items(plan: ExecutionPlan) -> set[int]:
    """Values that lists name."""
    lists = [value.val for value in plan.values if isinstance(value.val, _LISTS_OF_VALUES)]
    return {item for one in lists for item in one.items if item >= 0}


def _with_items(value: EValue, moved: Mapping[int, int]) -> EValue:
    if not isinstance(value.val, _LISTS_OF_VALUES):
        return value
    listed = copy.copy(value.val)
    listed.items = [moved[item] if item >= 0 else item for item in listed.items]
    return EValue(val=listed)
