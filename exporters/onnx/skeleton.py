"""The traced graphs as ONNX with one placeholder node per site: what every storage form is built from."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
import zipfile
from collections.abc import Iterator

import onnx
import onnx_ir as ir
import torch
from onnxscript import values

from bitvox.compiler.frontend.graphs import Graph, Length
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.frontend.trace import trace
from bitvox.exporters.onnx.resident import DOMAIN

LOOKUP = "Lookup"
"""Placeholder of a tied site's rows; the other placeholders are the site itself."""

_Schema = onnx.defs.OpSchema


def _placeholder(name: str, reads: str = "tensor(float)") -> values.Op:
    schema = _Schema(
        name,
        DOMAIN,
        1,
        inputs=[_Schema.FormalParameter("x", reads)],
        outputs=[_Schema.FormalParameter("y", "tensor(float)")],
        attributes=[_Schema.Attribute("index", _Schema.AttrType.INT, "position in SpeechModel.sites")],
    )
    return values.Op(values.Opset(DOMAIN, 1), name, schema)


_LINEAR = _placeholder("Linear")
_CONV1D = _placeholder("Conv1d")
_LOOKUP = _placeholder(LOOKUP, "tensor(int64)")


def _linear_site(x: ir.Value, index: int, channels: int) -> ir.Value:
    return _LINEAR(x, index=index)


def _lookup_site(tokens: ir.Value, index: int, width: int) -> ir.Value:
    return _LOOKUP(tokens, index=index)


def _conv1d_site(
    x: ir.Value, index: int, channels: int, kernel: int, stride: int, padding: int, dilation: int
) -> ir.Value:
    return _CONV1D(x, index=index)


def build_skeleton(model: SpeechModel) -> bytes:
    """A zip archive of one ONNX model per graph, sites as `bitvox` nodes.

    It holds no site weight, so it is small; names are short and the same on every run.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for graph in model.graphs:
            archive.writestr(zipfile.ZipInfo(graph.name), _export(model, graph))
    return buffer.getvalue()


def load_skeleton(serialised: bytes) -> dict[str, ir.Model]:
    """The models that `build_skeleton` serialised, by graph in order, fresh to be rewritten."""
    with zipfile.ZipFile(io.BytesIO(serialised)) as archive:
        return {name: ir.from_proto(onnx.load_from_string(archive.read(name))) for name in archive.namelist()}


def _export(model: SpeechModel, graph: Graph) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            trace(model, graph),
            dynamo=True,
            custom_translation_table={
                torch.ops.bitvox.linear_site.default: _linear_site,
                torch.ops.bitvox.conv1d_site.default: _conv1d_site,
                torch.ops.bitvox.lookup_site.default: _lookup_site,
            },
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            verbose=False,
        )
    assert program is not None
    _strip(program.model, graph)
    return ir.to_proto(program.model).SerializeToString(deterministic=True)


def _strip(model: ir.Model, traced: Graph) -> None:
    """Drop what only the tracer needed and give every value a short name: graph bytes count against the
    budget."""
    model.doc_string = None
    model.producer_name, model.producer_version = "bitvox", None
    model.metadata_props.clear()
    graph = model.graph
    graph.name = "bitvox"
    graph.metadata_props.clear()
    for value, port in zip(graph.inputs, traced.inputs, strict=True):
        sizes = (size.name if isinstance(size, Length) else size for size in port.shape)
        value.shape = ir.Shape(list(sizes))
    for value, written in zip(graph.outputs, traced.outputs, strict=True):
        value.shape = ir.Shape(list(written.shape))
    kept = {*graph.inputs, *graph.outputs}
    for position, node in enumerate(graph):
        node.name = None
        node.doc_string = None
        node.metadata_props.clear()
        for offset, value in enumerate(node.outputs):
            _forget(value)
            if value not in kept:
                value.shape = value.type = None  # the runtime infers them
                value.name = f"{position:x}" if offset == 0 else f"{position:x}.{offset}"
    for position, initializer in enumerate(list(graph.initializers.values())):
        _forget(initializer)
        initializer.name = f"k{position:x}"  # no hexadecimal digit first, so no node's value has this name


def _forget(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its own progress on stdout and through loggers; stdout belongs to the user's
    data."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
