"""What is made once for a model and kept between runs: its trace, and the programs lowered from it.

A skeleton is a zip archive of the traced model without site weights (`traced.pt2`) and the lowered form of
the plan that is usual. A plan with other forms, say with more sites at full precision, is lowered when it is
met.
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
from typing import Any, TypeVar

import torch

from bitvox.compiler.frontend.graphs import Length
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.frontend.trace import trace
from bitvox.compiler.passes.policy import POLICIES
from bitvox.errors import InputError
from bitvox.exporters.executorch.framing import framing, method_lengths, rows
from bitvox.exporters.executorch.graph import Exposed, SiteForm, write_forms
from bitvox.exporters.executorch.lengths import method_name
from bitvox.exporters.executorch.lowering import Lowered, lower
from bitvox.exporters.executorch.program import Program, joined
from bitvox.exporters.executorch.session import MINIMUM, PER_FRAME, RATE
from bitvox.exporters.executorch.stock_sizes import structure, with_weights_of

# XNNPACK sets memory aside for the longest input that a graph was exported for, when it is loaded, and takes
# more when it meets a longer one.
_EXPORTED_SECONDS = 1
_MOST_REMEMBERED = 6


@dataclass(frozen=True)
class Compared:
    """A program for the shortest length that hands out the values of every site beside the logits.

    Attributes:
        program: It, before packed weights are put in.
        exposed: Where the values are among its outputs, by site in order.
    """

    program: Program
    exposed: tuple[Exposed, ...]


def build_skeleton(model: SpeechModel) -> bytes:
    """The archive for a model."""
    bare, forms = traced_skeleton(model), usual_forms(model)
    key = _key(forms)
    entries = dict(zip((_TRACED, _SIZES), _entries(bare, _TRACED, _SIZES), strict=True))
    lowered, lengths, _ = _lower(bare, forms, expose=False)
    exposed = lowered.emit_exposed(lengths[0], len(forms))
    compared = Compared(*exposed) if exposed else _lower_compared(bare, forms)
    entries |= {
        f"{key}.shipped": _for_lengths(lowered, lengths).to_bytes(),
        f"{key}.compared": compared.program.to_bytes(),
        f"{key}.exposed": json.dumps([dataclasses.astuple(one) for one in compared.exposed]).encode(),
    }
    return _archive(entries)


def traced_skeleton(model: SpeechModel) -> bytes:
    """An archive with nothing lowered in it, for a program that is written once.

    Raises InputError for a model of several graphs, and as `framing` does.
    """
    if len(model.graphs) > 1:
        raise InputError(
            f"model '{model.source}': runs in {len(model.graphs)} graphs, and executorch here takes one; "
            "compile it with --target onnx"
        )
    program = trace(model, model.graphs[0])
    found = framing(model, program)
    numbers = {RATE: found.rate, MINIMUM: found.minimum, PER_FRAME: found.per_frame}
    port, longest = model.graphs[0].inputs[0], rows(model, _EXPORTED_SECONDS * model.processor.sampling_rate)
    least = next(size.least for size in port.shape if isinstance(size, Length))
    sizes = _Sizes(method_lengths(model), least, longest, port.example().shape[2:], numbers)
    traced = io.BytesIO()
    torch.export.save(program, traced)
    return _archive({_TRACED: traced.getvalue(), _SIZES: json.dumps(dataclasses.asdict(sizes)).encode()})


@dataclass(frozen=True)
class _Sizes:
    """What lowering needs to know beside the traced graph.

    Attributes:
        lengths: Rows of input up to which there is a method.
        least, longest: Rows that the graph is exported for.
        width: Shape of a row.
        numbers: Methods of the program that return a number.
    """

    lengths: Sequence[int]
    least: int
    longest: int
    width: Sequence[int]
    numbers: Mapping[str, int]


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
        stored = _entries(skeleton, f"{_key(forms)}.shipped")
        return Program.read(*stored) if stored else _lower_shipped(skeleton, forms)

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
        stored = _entries(skeleton, f"{_key(forms)}.compared", f"{_key(forms)}.exposed")
        if not stored:
            return _lower_compared(skeleton, forms)
        program, exposed = stored
        return Compared(Program.read(program), tuple(Exposed(*one) for one in json.loads(exposed)))

    return _remembered(("compared", _hash(skeleton), _key(forms)), make)


_TRACED, _SIZES = "traced.pt2", "sizes.json"

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


def _lower_shipped(skeleton: bytes, forms: Sequence[SiteForm]) -> Program:
    return _for_lengths(*_lower(skeleton, forms, expose=False)[:2])


def _for_lengths(lowered: Lowered, lengths: Sequence[int]) -> Program:
    return joined({method_name(length): lowered.emit(length) for length in lengths})


def _lower_compared(skeleton: bytes, forms: Sequence[SiteForm]) -> Compared:
    """Lowered anew with every site's values among the outputs, where a delegate keeps some to itself."""
    lowered, lengths, exposed = _lower(skeleton, forms, expose=True)
    return Compared(lowered.emit(lengths[0]), exposed)


def _lower(
    skeleton: bytes, forms: Sequence[SiteForm], expose: bool
) -> tuple[Lowered, list[int], tuple[Exposed, ...]]:
    """The lowered graph, the lengths to emit it for in rows, and what `expose` adds to its outputs."""
    traced, stored = _entries(skeleton, _TRACED, _SIZES)
    sizes = _Sizes(**json.loads(stored))
    module, exposed = write_forms(torch.export.load(io.BytesIO(traced)), forms, expose)
    example = torch.zeros(1, (sizes.least + sizes.longest) // 2, *sizes.width)
    lowered = lower(module, example, sizes.least, sizes.longest, sizes.numbers)
    return lowered, list(sizes.lengths), exposed


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


def _entries(skeleton: bytes, *names: str) -> list[bytes]:
    """Those entries of the archive; none where one is not there."""
    with zipfile.ZipFile(io.BytesIO(skeleton)) as archive:
        present = set(archive.namelist())
        return [archive.read(name) for name in names] if present.issuperset(names) else []
