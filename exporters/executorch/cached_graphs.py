"""What is lowered of an encoder-decoder: its graphs as methods, the decoder's step with caches of its own.

    encoder  features                            -> hidden
    cross    hidden                              -> keys and values of cross-attention, layer by layer
    step     tokens [1, n], before [t], positions [n], cross           -> logits [1, vocabulary]
    beams    tokens [B, 1], before [t], positions [1], rows [B], cross -> logits [B, vocabulary]

The keys and values of self-attention are mutable buffers, one row of them for `step` and several for
`beams`, which ExecuTorch takes memory for when a method is first run. `before` are the positions of what has
been read, 0 to t - 1, and `positions` those of the new tokens, t to t + n - 1: nothing is ever read from a
buffer that this window has not written. Row i of `beams` goes on from row rows[i] of the call before. The two
methods do not see each other's buffers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bitvox.compiler.frontend.graph_decoder import CROSS, ENCODER, PAST, STEP
from bitvox.compiler.frontend.graphs import Graph, Length
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.exporters.executorch.decoder_session import BEAMS, ROWS
from bitvox.exporters.executorch.graph import Exposed, SiteForm, write_forms
from bitvox.exporters.executorch.lowering import Lowered, Method
from bitvox.exporters.executorch.program import Program

_aten = torch.ops.aten

# Half of ONNX Runtime's, where rows grow with what is asked: here the most are set aside.
_MOST_ROWS = 8

_Size = int | list[Any]


@dataclass(frozen=True)
class CachedGraphs:
    """What lowering needs to know beside the traced graphs (a `Recipe`).

    Attributes:
        inputs: Shape of each input of each graph; a length is its name, least, most and example.
        caches: How many keys and values of self-attention there are.
        cache: Heads, tokens that the decoder can read, and width of a head.
        numbers: Methods of the program that return a number.
    """

    inputs: Mapping[str, Sequence[Sequence[_Size]]]
    caches: int
    cache: Sequence[int]
    numbers: Mapping[str, int]

    @classmethod
    def of(cls, model: SpeechModel) -> CachedGraphs:
        """That of a model with the graphs that `GraphDecoder` tells of."""
        graphs = {graph.name: graph for graph in model.graphs}
        caches = [port for port in graphs[STEP].inputs if port.name.startswith(PAST)]
        _, tokens = graphs[STEP].inputs[0].shape
        _, heads, _, width = caches[0].shape
        assert isinstance(tokens, Length) and isinstance(heads, int) and isinstance(width, int)
        inputs = {name: _shapes(graph) for name, graph in graphs.items()}
        return cls(inputs, len(caches), (heads, tokens.most, width), {ROWS: _MOST_ROWS})

    def methods(
        self, traced: Mapping[str, torch.export.ExportedProgram], forms: Sequence[SiteForm], expose: bool
    ) -> tuple[dict[str, Method], dict[str, dict[int, Exposed]]]:
        """What to lower, and what `expose` adds to the outputs of each method; beams are held to the step."""
        methods, exposed = {}, {}
        for name in (ENCODER, CROSS):
            module, exposed[name] = write_forms(traced[name], forms, expose)
            methods[name] = Method(_Flat(module), self._example(name), (tuple(self._dims(name)),))
        step, values = write_forms(traced[STEP], forms, expose)
        _hand_out_new(step, self.caches)
        methods[STEP] = self._step(step, 1)
        if not expose:
            methods[BEAMS] = self._step(step, _MOST_ROWS)
        exposed[STEP] = {index: _moved(one, self.caches) for index, one in values.items()}
        return methods, exposed

    def emit(self, lowered: Lowered) -> Program:
        """The program of a bundle."""
        return lowered.emit()

    @property
    def compared_length(self) -> None:
        """Memory is planned for the longest window."""

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    def _step(self, step: torch.nn.Module, rows: int) -> Method:
        heads, most, width = self.cache
        old, past = torch.export.Dim("past", min=0, max=most), torch.arange(5)
        cross, lengths = self._example(STEP)[1 + self.caches :], tuple(self._dims(STEP)[1 + self.caches :])
        if rows == 1:
            tokens = torch.export.Dim("tokens", min=1, max=most)
            example = (torch.zeros(1, 2, dtype=torch.int64), past, torch.arange(2), *cross)
            module: torch.nn.Module = _CachedStep(step, (1, *self.cache), self.caches)
            return Method(module, example, ({1: tokens}, {0: old}, {0: tokens}, lengths))
        some = torch.export.Dim("rows", min=1, max=rows)
        # XNNPACK takes values with one dynamic dimension where they are made into another shape.
        example = (torch.zeros(3, 1, dtype=torch.int64), past, torch.arange(1), torch.arange(3), *cross)
        module = _CachedBeams(step, (heads, rows * most, width), self.caches)
        return Method(module, example, ({0: some}, {0: old}, {}, {0: some}, lengths))

    def _example(self, name: str) -> tuple[Tensor, ...]:
        return tuple(
            torch.zeros([size if isinstance(size, int) else size[3] for size in shape])
            for shape in self.inputs[name]
        )

    def _dims(self, name: str) -> list[dict[int, Any]]:
        dims = {
            size[0]: torch.export.Dim(size[0], min=size[1], max=size[2])
            for shape in self.inputs[name]
            for size in shape
            if not isinstance(size, int)
        }
        return [
            {axis: dims[size[0]] for axis, size in enumerate(shape) if not isinstance(size, int)}
            for shape in self.inputs[name]
        ]


class _Flat(torch.nn.Module):
    """A written graph, called on its inputs one by one."""

    def __init__(self, written: torch.nn.Module) -> None:
        super().__init__()
        self.written = written

    def forward(self, *inputs: Tensor) -> Any:
        return self.written(*inputs)


class _Caches(torch.nn.Module):
    """A written step, and buffers for the keys and values of what it reads."""

    def __init__(self, step: torch.nn.Module, shape: Sequence[int], count: int) -> None:
        super().__init__()
        self.step, self.count = step, count
        for index in range(count):
            self.register_buffer(f"cache{index}", torch.zeros(tuple(shape)))

    def caches(self) -> list[Tensor]:
        return [self.get_buffer(f"cache{index}") for index in range(self.count)]


class _CachedStep(_Caches):
    """One row; buffers [1, heads, positions, width]."""

    def forward(
        self, tokens: Tensor, before: Tensor, positions: Tensor, *cross: Tensor
    ) -> tuple[Tensor, ...]:
        past = [cache[:, :, : before.shape[0]] for cache in self.caches()]
        outputs = self.step(tokens, *past, *cross)
        for cache, new in zip(self.caches(), outputs[1 : 1 + self.count], strict=True):
            cache.index_copy_(2, positions, new)
        return outputs[0], *outputs[1 + self.count :]


class _CachedBeams(_Caches):
    """Several rows, each of which goes on from any row of the call before.

    Buffers [heads, rows * positions, width]: ExecuTorch writes in place along one dimension.
    """

    def forward(
        self, tokens: Tensor, before: Tensor, positions: Tensor, rows: Tensor, *cross: Tensor
    ) -> Tensor:
        count = tokens.shape[0]
        most = self.caches()[0].shape[1] // _MOST_ROWS
        taken = (rows[:, None] * most + before[None]).flatten()
        past = [
            cache.index_select(1, taken).unflatten(1, (count, before.shape[0])).transpose(0, 1)
            for cache in self.caches()
        ]
        outputs = self.step(tokens, *past, *cross)
        place = (torch.arange(count)[:, None] * most + torch.cat((before, positions))[None]).flatten()
        for cache, old, new in zip(self.caches(), past, outputs[1 : 1 + self.count], strict=True):
            grown = torch.cat((old, new), dim=2).transpose(0, 1)
            cache.index_copy_(1, place, grown.flatten(1, 2))
        return outputs[0]


def _hand_out_new(step: torch.fx.GraphModule, count: int) -> None:
    """Let a written step hand out the keys and values of its new tokens, not those of all."""
    output = step.graph.output_node()
    assert isinstance(output.args[0], list | tuple)
    handed: list[Any] = list(output.args[0])
    for index in range(1, 1 + count):
        grown = handed[index]
        if grown.target != _aten.cat.default or grown.args[0][0].op != "placeholder":
            raise AssertionError("a step must grow its caches by joining new keys and values to the old")
        handed[index] = grown.args[0][1]
    output.args = (tuple(handed),)
    step.graph.set_codegen(torch.fx.graph.CodeGen())
    step.recompile()


def _moved(exposed: Exposed, count: int) -> Exposed:
    """Where values are when keys and values are no outputs any more."""
    return exposed.moved(lambda position: position if position == 0 else position - count)


def _shapes(graph: Graph) -> list[list[_Size]]:
    return [
        [
            [size.name, size.least, size.most, size.example] if isinstance(size, Length) else size
            for size in port.shape
        ]
        for port in graph.inputs
    ]
