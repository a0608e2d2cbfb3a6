"""ExecuTorch programs as data: read, fill in packed weights, join lengths of audio into one file, write.

A program is lowered once for a model, with a placeholder of 64 bytes where the packed weight of a site will
be. A plan then costs no lowering: its weights and scales are put in their places and the file is serialised
anew. Both directions go through ExecuTorch's own serialiser; what it repeats is then shared.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from executorch.exir._serialize._program import PTEFile, deserialize_pte_binary, serialize_pte_binary
from executorch.exir.schema import Buffer, Double, EValue, ExecutionPlan, Int, KernelCall, Tensor

from bitvox.exporters.executorch.compact import compacted
from bitvox.exporters.executorch.sharing import shared

# Packed weights are computed on where they lie; their kernels read whole cache lines.
ALIGNMENT = 64

NAMESPACE = "bitvox::"

# Reads rows of a weight that another operator multiplies with.
LOOKUP = f"{NAMESPACE}lookup.out"

# Name of the method in a program that was lowered for one length.
METHOD = "forward"
_WAITING = b"bitvox site "


@dataclass(frozen=True)
class PackedConstant:
    """What a site's call of an operator is given: the packed weight, and how activations are rounded.

    `x_scale` 0 stands for scales of their own, see `bitvox.runtime_kernels.adapters.executorch.operators`.
    """

    weight: bytes
    x_scale: float = 0.0
    x_zero: int = 0


def placeholder(index: int) -> bytes:
    """What stands for the packed weight of a site in a program that has not been filled, 64 bytes."""
    return (_WAITING + b"%08d" % index).ljust(ALIGNMENT, b"\0")


@dataclass(frozen=True)
class Program:
    """A deserialised program; nothing changes one in place."""

    file: PTEFile

    @classmethod
    def read(cls, buffer: bytes) -> Program:
        """The program in the bytes of a `.pte` file."""
        return cls(deserialize_pte_binary(buffer))

    def to_bytes(self) -> bytes:
        """The bytes of a `.pte` file, the same for the same program."""
        return shared(
            bytes(
                serialize_pte_binary(
                    self.file, extract_delegate_segments=True, constant_tensor_alignment=ALIGNMENT
                )
            )
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of its methods, in order."""
        return tuple(plan.name for plan in self.file.program.execution_plan)

    @property
    def operators(self) -> tuple[str, ...]:
        """Kernels and backends that a runtime must have, `namespace::name.overload` or a backend's name."""
        found = set()
        for plan in self.file.program.execution_plan:
            found |= {operator_name(plan, index) for index in range(len(plan.operators))}
            found |= {delegate.id for delegate in plan.delegates}
        return tuple(sorted(found))

    def filled(self, constants: Mapping[int, PackedConstant]) -> Program:
        """With the placeholder of each site, by its index, replaced; equal weights are stored once."""
        file = copy.copy(self.file)
        file.program = copy.copy(file.program)
        program = file.program
        site_at = {
            position: int(buffer.storage[len(_WAITING) :][:8])
            for position, buffer in enumerate(program.constant_buffer)
            if buffer.storage.startswith(_WAITING)
        }
        first: dict[bytes, int] = {}
        for position, site in site_at.items():
            first.setdefault(constants[site].weight, position)
        weights = {position: weight for weight, position in first.items()}
        program.constant_buffer = [
            Buffer(storage=weights.get(position, b"")) if position in site_at else buffer
            for position, buffer in enumerate(program.constant_buffer)
        ]
        home = {position: first[constants[site].weight] for position, site in site_at.items()}
        program.execution_plan = [
            compacted(_filled(plan, site_at, home, constants)) for plan in program.execution_plan
        ]
        return Program(file)


def joined(programs: Mapping[str, Program]) -> Program:
    """One program with the method `forward` of each, under its name there, and the constants of all once.

    All must have come from one lowering, so that they differ in memory plans alone; other methods are taken
    from the first.
    """
    first, *_ = programs.values()
    file = copy.copy(first.file)
    file.program = copy.copy(file.program)
    plans: list[ExecutionPlan] = []
    delegate_data: list[Any] = []
    for name, one in programs.items():
        source = one.file.program
        assert source.constant_buffer == file.program.constant_buffer
        for plan in source.execution_plan:
            if plan.name != METHOD and one is not first:
                continue
            plan = copy.copy(plan)
            plan.delegates = copy.deepcopy(plan.delegates)
            for delegate in plan.delegates:
                data = source.backend_delegate_data[delegate.processed.index]
                delegate.processed.index = len(delegate_data)
                delegate_data.append(data)
            plan.name = name if plan.name == METHOD else plan.name
            plans.append(plan)
    file.program.execution_plan = plans
    file.program.backend_delegate_data = delegate_data
    return Program(file)


def operator_name(plan: ExecutionPlan, index: int) -> str:
    """An operator of a method as `namespace::name.overload`."""
    operator = plan.operators[index]
    return f"{operator.name}.{operator.overload}" if operator.overload else operator.name


def kernel_calls(plan: ExecutionPlan) -> Iterator[tuple[str, KernelCall]]:
    """Calls of kernels, not of delegates, in order, with the operator's name."""
    for chain in plan.chains:
        for instruction in chain.instructions:
            if isinstance(instruction.instr_args, KernelCall):
                yield operator_name(plan, instruction.instr_args.op_index), instruction.instr_args


def constant_of(plan: ExecutionPlan, value: int) -> int | None:
    """Position in the constant buffer of a value, where it is a constant tensor."""
    tensor = plan.values[value].val
    if not isinstance(tensor, Tensor) or tensor.data_buffer_idx == 0 or tensor.allocation_info is not None:
        return None
    return int(tensor.data_buffer_idx)


def _filled(
    plan: ExecutionPlan,
    site_at: Mapping[int, int],
    home: Mapping[int, int],
    constants: Mapping[int, PackedConstant],
) -> ExecutionPlan:
    """A method whose packed weights, at `home` in the constant buffer, have come to their places."""
    plan = copy.copy(plan)
    plan.values = list(plan.values)
    plan.chains = copy.deepcopy(plan.chains)
    for name, call in kernel_calls(plan):
        position = constant_of(plan, call.args[1]) if name.startswith(NAMESPACE) else None
        if position is not None and position in site_at:
            constant = constants[site_at[position]]
            weight = copy.copy(plan.values[call.args[1]].val)
            assert isinstance(weight, Tensor)
            weight.sizes, weight.data_buffer_idx = [len(constant.weight)], home[position]
            call.args[1] = len(plan.values)
            plan.values.append(EValue(val=weight))
            if name != LOOKUP:
                _set_scales(plan.values, call.args, constant)
    return plan


def _set_scales(values: list[EValue], arguments: list[int], constant: PackedConstant) -> None:
    """Arguments end in x_scale, x_zero, out, and out again as what is returned."""
    if constant.x_scale == 0:
        return
    for position, value in ((-4, Double(constant.x_scale)), (-3, Int(constant.x_zero))):
        arguments[position] = len(values)
        values.append(EValue(val=value))
