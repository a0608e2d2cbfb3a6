"""The size of a program of XNNPACK's own layers without lowering it: the weights of one that was are swapped.

XNNPACK holds the codes and the scales of a layer as data of the file, named by their SHA-256, and its graphs
name them. So another width of a linear layer, or other codes, give a file that differs in those data and in
numbers of fixed size. What stands in for it here has the data of the plan and the graphs of the program that
was lowered: the same bytes to count, but not to run.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bitvox.exporters.executorch.graph import SiteForm
from bitvox.exporters.executorch.program import Program
from bitvox.exporters.executorch.stock import StockSite


def structure(forms: Sequence[SiteForm]) -> str:
    """Equal for forms whose programs differ in the codes, scales and ranges of quantised sites alone."""
    found = hashlib.sha256()
    for form in forms:
        found.update(repr(form.site).encode() if form.stock else form.digest)
    return found.hexdigest()


def with_weights_of(forms: Sequence[SiteForm], lowered: Program, base: Sequence[SiteForm]) -> Program | None:
    """What stands in for the program of `forms`.

    Args:
        forms: The sites as they will be.
        lowered: The program of `base`, which has the same `structure`.

    Returns None where XNNPACK keeps a weight in another form than is known here.
    """
    swapped: dict[str, dict[str, bytes]] = {}
    for now, before in zip(forms, base, strict=True):
        if now.stock is None or before.stock is None or now.site.operator != "linear" or now.site.tied:
            continue  # a convolution or a tied weight takes the same bytes whatever its codes
        for name, data in zip(_data(before.stock), _data(now.stock).items(), strict=True):
            swapped.setdefault(name, {}).update([data])
    file = copy.copy(lowered.file)
    stored = file.named_data
    if stored is None or not swapped.keys() <= stored.pte_data.keys():
        return None if swapped else lowered
    entries, buffers = {}, list[bytes]()
    for name, entry in stored.pte_data.items():
        # One that sites share may have become several.
        for other, content in swapped.get(name, {name: stored.buffers[entry.buffer_index]}).items():
            if other not in entries:
                entries[other] = replace(entry, buffer_index=len(buffers))
                buffers.append(content)
    file.named_data = replace(stored, buffers=buffers, pte_data=entries)
    return Program(file)


def _data(site: StockSite) -> dict[str, bytes]:
    """Codes and scales of a linear layer by the names that XNNPACK gives them."""
    codes = site.codes.numpy()
    content = (_nibbles(codes) if site.bits == 4 else codes).tobytes()
    scales = site.scale.numpy().tobytes()
    return {
        hashlib.sha256(content).hexdigest(): content,
        f"scale_{hashlib.sha256(scales).hexdigest()}": scales,
    }


def _nibbles(codes: np.ndarray) -> np.ndarray:
    """Codes [N, K] of -8..7 in two to a byte, the first in the low half; a row is filled up with zeros."""
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    halves = (even + 8).astype(np.uint8)
    packed: np.ndarray = halves[:, ::2] | halves[:, 1::2] << 4
    return packed
