"""What is made once for a model and kept between runs: its trace, and the programs lowered from it.

A skeleton is a zip archive of the traced graphs without site weights and, for bitvox's kernels, the lowered
form of the plan that is usual. A plan with other forms, say with more sites at full precision, is lowered
when it is met.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from bitvox.compiler.frontend.graph_decoder import CROSS, ENCODER, STEP
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.frontend.session import MODEL
from bitvox.compiler.frontend.trace import trace
from bitvox.compiler.passes.policy import POLICIES
from bitvox.errors import InputError
from bitvox.exporters.executorch.cached_graphs import CachedGraphs
from bitvox.exporters.executorch.graph import Exposed, SiteForm
from bitvox.exporters.executorch.lowering import Lowered, Method, lower
from bitvox.exporters.executorch.one_graph import OneGraph
from bitvox.exporters.executorch.program import METHOD, Program
from bitvox.exporters.executorch.stock_sizes import structure, with_weights_of

_MOST_REMEMBERED = 6


class Recipe(Protocol):
    """What is lowered of a model, and how."""

    @property
    def numbers(self) -> Mapping[str, int]:
        """Methods of the program that return a number."""
        ...

    @property
    def compared_length(self) -> int | None:
        """Rows of input of the program that sites are compared in, where methods are for lengths."""
        ...

    def methods(
        self, traced: Mapping[str, torch.export.ExportedProgram], forms: Sequence[SiteForm], expose: bool
    ) -> tuple[dict[str, Method], dict[str, dict[int, Exposed]]]:
        """What to lower, and what `expose` adds to the outputs of each method."""
        ...

    def emit(self, lowered: Lowered) -> Program:
        """The program of a bundle."""
        ...

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        ...


@dataclass(frozen=True)
class Compared:
    """A program that hands out the values of every site beside its own outputs.

    Attributes:
        program: It, before packed weights are put in; of one graph, for the shortest length.
        exposed: Where the values are among the outputs of each method, by index of the site.
    """

    program: Program
    exposed: Mapping[str, Mapping[int, Exposed]]


def lowered_skeleton(model: SpeechModel) -> bytes:
    """An archive with the programs of the usual forms; raises as `traced_skeleton` does."""
    bare, forms = traced_skeleton(model), usual_forms(model)
    key = _key(forms)
    lowered, recipe, _ = _lower(bare, forms, expose=False)
    sites: dict[str, list[int]] = {}
    for index, site in enumerate(model.sites):
        sites.setdefault(METHOD if site.graph == MODEL else site.graph, []).append(index)
    exposed = lowered.emit_exposed(recipe.compared_length, sites)
    compared = Compared(*exposed) if exposed else _lower_compared(bare, forms)
    return _archive(
        _read(bare)
        | {
            f"{key}.shipped": recipe.emit(lowered).to_bytes(),
            f"{key}.compared": compared.program.to_bytes(),
            f"{key}.exposed": _exposed_document(compared.exposed),
        }
    )


def traced_skeleton(model: SpeechModel) -> bytes:
    """An archive with nothing lowered in it, for a program that is written once or holds its weights.

    Raises InputError for graphs that this target does not know, and as `framing` does.
    """
    names = tuple(graph.name for graph in model.graphs)
    if names not in ((MODEL,), (ENCODER, CROSS, STEP)):
        raise InputError(
            f"model '{model.source}': runs as {', '.join(names)}, and executorch here takes one graph or "
            f"{ENCODER}, {CROSS} and {STEP}; compile it with --target onnx"
        )
    entries, programs = {}, {}
    for graph in model.graphs:
        programs[graph.name] = trace(model, graph)
        traced = io.BytesIO()
        torch.export.save(programs[graph.name], traced)
        entries[f"{graph.name}{_TRACED}"] = traced.getvalue()
    recipe: Recipe = OneGraph.of(model, programs[MODEL]) if names == (MODEL,) else CachedGraphs.of(model)
    skeleton = _archive({**entries, _RECIPE: json.dumps(recipe.document()).encode()})
    _remembered(("traced", _hash(skeleton)), lambda: (programs, recipe))
    return skeleton


def usual_forms(model: SpeechModel) -> tuple[SiteForm, ...]:
    """Packed weights wherever the default tier quantises."""
    forms = []
    for site in model.sites:
        module = model.site_module(site)
        bias = None if module.bias is None else module.bias.detach().numpy().copy()
        full = POLICIES["default"][site.role].floor is None
        weight = module.weight.detach().half().float().numpy() if full else None
        forms.append(SiteForm(site, bias, weight))
    return tuple(forms)


def shipped_program(skeleton: bytes, forms: Sequence[SiteForm]) -> Program:
    """The program of a bundle before packed weights are put in: from the skeleton, or lowered now."""

    def make() -> Program:
        stored = _read(skeleton).get(f"{_key(forms)}.shipped")
        if stored is not None:
            return Program.read(stored)
        lowered, recipe, _ = _lower(skeleton, forms, expose=False)
        return recipe.emit(lowered)

    return _remembered(("shipped", _hash(skeleton), _key(forms)), make)


def sized_program(skeleton: bytes, forms: Sequence[SiteForm]) -> Program:
    """A program as large as `shipped_program`, that need not run: lowered once for all widths of a plan."""
    if not any(form.stock for form in forms):
        return shipped_program(skeleton, forms)
    base, lowered = _remembered(
        ("sized", _hash(skeleton), structure(forms)), lambda: (forms, shipped_program(skeleton, forms))
    )
    return with_weights_of(forms, lowered, base) or shipped_program(skeleton, forms)


def compared_program(skeleton: bytes, forms: Sequence[SiteForm]) -> Compared:
    """The program that a bundle's is compared by: from the skeleton, or lowered now."""

    def make() -> Compared:
        entries = _read(skeleton)
        program, exposed = (entries.get(f"{_key(forms)}.{kind}") for kind in ("compared", "exposed"))
        if program is None or exposed is None:
            return _lower_compared(skeleton, forms)
        return Compared(Program.read(program), _exposed_from(exposed))

    return _remembered(("compared", _hash(skeleton), _key(forms)), make)


_TRACED, _RECIPE = ".pt2", "recipe.json"

_T = TypeVar("_T")
_remembered_results: OrderedDict[tuple[str, ...], Any] = OrderedDict()


def _remembered(key: tuple[str, ...], make: Callable[[], _T]) -> _T:
    """What `make` gave for this key, of the last few; a compile asks for one program again and again."""
    if key not in _remembered_results:
        _remembered_results[key] = make()
        while len(_remembered_results) > _MOST_REMEMBERED:
            _remembered_results.popitem(last=False)
    result: _T = _remembered_results[key]
    return result


def _lower_compared(skeleton: bytes, forms: Sequence[SiteForm]) -> Compared:
    """Lowered anew with every site's values among the outputs, where a delegate keeps some to itself."""
    lowered, recipe, exposed = _lower(skeleton, forms, expose=True)
    return Compared(lowered.emit(recipe.compared_length), exposed)


def _lower(
    skeleton: bytes, forms: Sequence[SiteForm], expose: bool
) -> tuple[Lowered, Recipe, dict[str, dict[int, Exposed]]]:
    """The lowered graphs, what they are lowered by, and what `expose` adds to the outputs of each method."""
    traced, recipe = _remembered(("traced", _hash(skeleton)), lambda: _read_traced(skeleton))
    methods, exposed = recipe.methods(traced, forms, expose)
    return lower(methods, recipe.numbers), recipe, exposed


def _read_traced(skeleton: bytes) -> tuple[dict[str, torch.export.ExportedProgram], Recipe]:
    """The traced graphs, and what is lowered of them."""
    entries = _read(skeleton)
    document = json.loads(entries[_RECIPE])
    recipe: Recipe = OneGraph(**document) if f"{MODEL}{_TRACED}" in entries else CachedGraphs(**document)
    traced = {
        name.removesuffix(_TRACED): torch.export.load(io.BytesIO(content))
        for name, content in entries.items()
        if name.endswith(_TRACED)
    }
    return traced, recipe


def _exposed_document(exposed: Mapping[str, Mapping[int, Exposed]]) -> bytes:
    places = {
        method: {index: dataclasses.astuple(one) for index, one in sites.items()}
        for method, sites in exposed.items()
    }
    return json.dumps(places).encode()


def _exposed_from(document: bytes) -> dict[str, dict[int, Exposed]]:
    return {
        method: {int(index): Exposed(*one) for index, one in sites.items()}
        for method, sites in json.loads(document).items()
    }


def _key(forms: Sequence[SiteForm]) -> str:
    """Digest of everything of the forms that lowering puts into a program."""
    return hashlib.sha256(b"".join(form.digest for form in forms)).hexdigest()[:16]


def _hash(skeleton: bytes) -> str:
    """SHA-256 of a skeleton."""
    return hashlib.sha256(skeleton).hexdigest()


def _archive(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _read(skeleton: bytes) -> dict[str, bytes]:
    """Every entry of the archive."""
    with zipfile.ZipFile(io.BytesIO(skeleton)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
