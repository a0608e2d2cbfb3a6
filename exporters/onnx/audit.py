"""Which kernel did every site reach? Read from the graph that ONNX Runtime made of the file, not from what
was meant."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

from bitvox.compiler.passes.plan import QuantPlan
from bitvox.errors import RequestError
from bitvox.exporters.onnx.forms import SiteValues
from bitvox.exporters.onnx.session import create_session, quiet_options
from bitvox.runtime_kernels.adapters.onnxruntime.library import library_isa

LIBRARY_KERNELS = frozenset({"NBitLinear", "NBitConv1d"})

INTEGER_KERNELS = LIBRARY_KERNELS | frozenset(
    {
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "QLinearMatMul",
        "QLinearConv",
        "MatMulNBits",
    }
)


def kernels_reached(model: Path, sites: Mapping[str, SiteValues]) -> dict[str, str]:
    """Site -> operator that ONNX Runtime runs for it, after its own optimisation at the default level.

    An operator of bitvox's library is named with the instruction set that it uses here:
    `NBitLinear avx512vnni`.
    """
    graph = _optimised_graph(model)
    readers = {value: node.op_type for node in graph.node for value in node.input}
    producers = {value: node.op_type for node in graph.node for value in node.output}
    reached = {}
    for name, values in sites.items():
        operator = readers.get(values.weight) or producers.get(values.product) or producers.get(values.output)
        if operator is None:
            raise RequestError(
                f"site '{name}': not found in the graph that ONNX Runtime optimised; its kernel is unknown"
            )
        reached[name] = f"{operator} {library_isa()}" if operator in LIBRARY_KERNELS else operator
    return reached


def check_kernels(reached: Mapping[str, str], plan: QuantPlan) -> list[str]:
    """Sites that were meant to compute in integers and run in float."""
    return [
        entry.site
        for entry in plan.sites
        if entry.bits is not None
        and entry.activations != "float"
        and reached[entry.site].split()[0] not in INTEGER_KERNELS
    ]


def _optimised_graph(model: Path) -> onnx.GraphProto:
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = quiet_options(model, num_threads=1)
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "optimised.data"
        )
        create_session(model, options)
        return onnx.load(optimised, load_external_data=False).graph
