"""Which kernel did every site reach? Read from the graph that ONNX Runtime made of the file, not from what
was meant."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

from bitvox.compiler.passes.plan import QuantPlan
from bitvox.errors import RequestError
from bitvox.exporters.onnx.forms import SiteValues

INTEGER_KERNELS = frozenset(
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
    """Site -> operator that ONNX Runtime runs for it, after its own optimisation at the default level."""
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
        reached[name] = operator
    return reached


def check_kernels(reached: Mapping[str, str], plan: QuantPlan) -> list[str]:
    """Sites that were meant to compute in integers and run in float."""
    return [
        entry.site
        for entry in plan.sites
        if entry.bits is not None
        and entry.activations != "float"
        and reached[entry.site] not in INTEGER_KERNELS
    ]


def _optimised_graph(model: Path) -> onnx.GraphProto:
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.optimized_model_filepath = str(optimised)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "optimised.data"
        )
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        return onnx.load(optimised, load_external_data=False).graph
