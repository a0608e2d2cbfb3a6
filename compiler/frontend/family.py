"""What a family has to say about itself, so that nothing outside its file needs to know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from bitvox.compiler.frontend.graphs import Graph, one_graph
from bitvox.compiler.frontend.model import Kind, Role
from bitvox.compiler.frontend.processor import AnyProcessor


@dataclass(frozen=True)
class Family:
    """One architecture and how it is read.

    Attributes:
        architecture: Class name that config.json carries.
        kind: What its logits say.
        load: Folder in the hub's layout -> (float32 module, processor); raises InputError.
        wrap: Module as loaded -> module from model input [B, T, ...] to logits [B, frames, outputs]; a
            classifier writes one frame for the whole clip.
        role: Module path in the wrapped module -> role of the site.
        activation: (wrapped module, module path) -> the function that alone reads the site's output, if
            it is known.
        share_group: Module path -> name of the group of sites that must share a width.
        reads: What its processor makes of samples.
        graphs: (wrapped module, processor) -> the graphs that runtimes run of it.
    """

    architecture: str
    kind: Kind
    load: Callable[[Path], tuple[torch.nn.Module, AnyProcessor]]
    wrap: Callable[[torch.nn.Module], torch.nn.Module]
    role: Callable[[str], Role]
    share_group: Callable[[str], str]
    activation: Callable[[torch.nn.Module, str], Literal["gelu"] | None]
    reads: Literal["the waveform", "log-mel features"] = "the waveform"
    graphs: Callable[[torch.nn.Module, AnyProcessor], tuple[Graph, ...]] = one_graph
