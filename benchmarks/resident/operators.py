"""Time by operator, as each runtime's own profiler tells it: the least of several runs, node by node."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitvox.benchmarks.probe import noise
from bitvox.benchmarks.resident.variants import Variant
from bitvox.compiler.frontend.session import MODEL, SAMPLES
from bitvox.exporters.onnx import session as onnx_session

# First: it imports ExecuTorch's talkative compiler in silence.
from bitvox.exporters.executorch import toolchain  # noqa: F401 # isort: skip
from executorch.backends.xnnpack import serialization
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc
from executorch.exir._serialize._flatbuffer import _flatc_decompile
from executorch.exir.schema import DelegateCall, ExecutionPlan, KernelCall
from executorch.extension.pybindings import _C as portable_lib

from bitvox.exporters.executorch import session as executorch_session
from bitvox.exporters.executorch.program import Program, operator_name
from bitvox.exporters.executorch.quiet import quiet
from bitvox.runtime_kernels.adapters.executorch.library import load_library

# Operator, calls, and seconds of the wall in all of them.
Row = tuple[str, int, float]

_RATE = 16_000


def by_operator(variant: Variant, seconds: int, rounds: int, scratch: Path) -> list[Row]:
    """What a run on `seconds` of noise spends where; longest first."""
    profile = {"onnx": _onnx_calls, "executorch": _executorch_calls}[variant.form.target]
    least: dict[tuple[str, Any], float] = {}
    for operator, node, duration in profile(variant.folder, seconds, rounds, scratch):
        least[operator, node] = min(least.get((operator, node), np.inf), duration)
    nodes: dict[str, list[float]] = defaultdict(list)
    for (operator, _), duration in least.items():
        nodes[operator].append(duration)
    rows = [(operator, len(times), sum(times)) for operator, times in nodes.items()]
    return sorted(rows, key=lambda row: -row[2])


_Calls = Iterable[tuple[str, Any, float]]


def _onnx_calls(folder: Path, seconds: int, rounds: int, scratch: Path) -> _Calls:
    model = folder / f"{MODEL}{onnx_session.SUFFIX}"
    options = onnx_session.quiet_options(model, num_threads=1)
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    session = onnx_session.create_session(model, options)
    for _ in range(rounds):
        session.run(None, {SAMPLES: noise(seconds * _RATE)[None]})
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            yield event["args"]["op_name"], event["name"], event["dur"] / 1e6


def _executorch_calls(folder: Path, seconds: int, rounds: int, scratch: Path) -> _Calls:
    """By ETDump; a delegate is named after the nodes in it."""
    path = folder / executorch_session.MODEL_NAME
    session = executorch_session.open_session(folder, num_threads=1)
    assert isinstance(session, executorch_session.ExecutorchSession)
    method = session.methods[min(length for length in session.methods if length >= seconds * _RATE)]
    names = _instructions(Program.read(path.read_bytes()), method, scratch)
    load_library()
    with quiet():
        module = portable_lib._load_for_executorch(str(path), enable_etdump=True)
        for _ in range(rounds):
            module.run_method(method, (torch.from_numpy(noise(seconds * _RATE)[None]),))
        module.write_etdump_result_to_file(str(scratch / "profile.etdp"))
        dump = deserialize_from_etdump_flatcc((scratch / "profile.etdp").read_bytes())
    for run in dump.run_data:
        for event in run.events or ():
            call = event.profile_event
            if call is not None and call.name in _CALLS:
                instruction = call.instruction_id
                yield names[instruction], instruction, (call.end_time - call.start_time) / 1e9


_CALLS = ("OPERATOR_CALL", "DELEGATE_CALL")


def _instructions(program: Program, method: str, scratch: Path) -> dict[int, str]:
    """What each instruction of a method runs."""
    plan = next(plan for plan in program.file.program.execution_plan if plan.name == method)
    names = {}
    for chain in plan.chains:
        for index, instruction in enumerate(chain.instructions):
            call = instruction.instr_args
            if isinstance(call, KernelCall):
                names[index] = operator_name(plan, call.op_index).removesuffix(".out")
            elif isinstance(call, DelegateCall):
                names[index] = _delegate_name(program, plan, call.delegate_index, scratch)
    return names


def _delegate_name(program: Program, plan: ExecutionPlan, index: int, scratch: Path) -> str:
    data = program.file.program.backend_delegate_data[plan.delegates[index].processed.index].data
    counted = Counter(_delegated_nodes(data, scratch))
    return "XNNPACK(" + ", ".join(f"{count} {name}" for name, count in counted.items()) + ")"


def _delegated_nodes(data: bytes, scratch: Path) -> Iterator[str]:
    """The node types of an XNNPACK graph, in order, from the runtime's own schema."""
    header = XNNHeader.from_bytes(data[: XNNHeader.EXPECTED_LENGTH])
    graph, schema = scratch / "graph.bin", scratch / "runtime_schema.fbs"
    graph.write_bytes(data[header.flatbuffer_offset :][: header.flatbuffer_size])
    schema.write_bytes(files(serialization).joinpath(schema.name).read_bytes())
    _flatc_decompile(str(scratch), str(schema), str(graph), ["--raw-binary"])
    for node in json.loads((scratch / "graph.json").read_bytes())["xnodes"]:
        yield node["xnode_union_type"].removeprefix("_XNN").removeprefix("XNN")
