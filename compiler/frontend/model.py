"""`SpeechModel` and its `Site`s: what every later room knows of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.graphs import Graph, TorchSession
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.compiler.frontend.session import MODEL

Operator = Literal["linear", "conv1d"]
Kind = Literal["ctc", "classifier", "encoder-decoder"]
Role = Literal["input_conv", "conv", "positional_conv", "linear", "decoder", "head", "embedding"]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ConvGeometry:
    """Stride, zero padding (both sides), dilation and channel groups of a Conv1d, in samples of its input."""

    stride: int
    padding: int
    dilation: int
    groups: int


@dataclass(frozen=True)
class Site:
    """One weight that can be quantised.

    Attributes:
        name: Module path in the prepared module, e.g. `wav2vec2.encoder.layers.0.attention.q_proj`.
        operator: `linear` (weight [N, K]) or `conv1d` (weight [N, C_in / groups, kernel]).
        shape: Shape of the weight, output channels first.
        role: What the site does in the network; policies speak of roles.
        share_group: Sites with the same share group must have the same width (q/k/v read one input).
        has_bias: Whether the operator adds a bias [N].
        conv: Geometry, for `conv1d` only.
        activation: The function that alone reads the output, where passes can make use of it.
        graph: Name of the graph that runs it.
        tied: Whether rows of the weight are also looked up, as the embeddings of tokens.
    """

    name: str
    operator: Operator
    shape: tuple[int, ...]
    role: Role
    share_group: str
    has_bias: bool
    conv: ConvGeometry | None = None
    activation: Literal["gelu"] | None = None
    graph: str = MODEL
    tied: bool = False

    @property
    def weights(self) -> int:
        """Number of weights, without the bias."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """Number of output channels N."""
        return self.shape[0]


@dataclass(frozen=True)
class SpeechModel:
    """A checkpoint, prepared for quantisation.

    Attributes:
        source: The name it was asked for by.
        fingerprint: SHA-256 over the checkpoint's configuration, processor and tensors; keys every cached
            result.
        architecture: Class name of the checkpoint, e.g. `Wav2Vec2ForCTC`.
        family: What its logits say: text (`ctc`, `encoder-decoder`), or one label for a clip (`classifier`).
        module: Prepared float32 module in eval mode: called on `inputs` it gives logits [1, frames, outputs].
        graphs: What runtimes run of it; `sites` of an earlier graph come first.
        processor: Feature normalisation and decoding, free of torch.
        sites: Every weight that can be quantised, in execution order.
        licence: Licence named by the checkpoint's card, or `unknown`.
    """

    source: str
    fingerprint: str
    architecture: str
    family: Kind
    module: torch.nn.Module
    processor: AnyProcessor
    graphs: tuple[Graph, ...]
    sites: tuple[Site, ...]
    licence: str

    @classmethod
    def from_module(
        cls,
        module: torch.nn.Module,
        *,
        decode: Callable[[FloatArray], str],
        sampling_rate: int,
        features: Callable[[FloatArray], FloatArray] | None = None,
        minimum_samples: int | None = None,
        writes: Literal["text", "label"] = "text",
        name: str | None = None,
    ) -> SpeechModel:
        """A torch module of your own, which is copied and not changed.

        Its Linear and Conv1d layers are the sites, in the order in which they run; those that read the same
        tensor share a width. It is traced, so that what it does may depend on the length of a clip and on no
        other value in it.

        A bundle runs without torch. `features` and `decode` are therefore functions of NumPy arrays that a
        module defines by name; the manifest holds the name, and whoever runs the bundle installs the module.

        Args:
            module: Model input [1, T', ...] -> logits [1, frames, outputs]; [1, 1, outputs] of a label for
                the whole clip.
            decode: Logits [frames, outputs] -> text, or label.
            sampling_rate: Samples per second that it was trained on.
            features: Samples [T] -> model input [T', ...]; None for a module that reads samples.
            minimum_samples: Shortest clip that it takes; a tenth of a second where none is given.
            writes: What its text is judged by: words, or one label for a clip.
            name: What messages and the manifest call it; the name of its class where none is given.

        Raises:
            InputError: A layer cannot be handled, the module cannot be traced, or a function cannot be found
                again or needs torch; names it and the reason.
        """
        from bitvox.compiler.frontend.own_module import speech_model

        return speech_model(module, features, decode, sampling_rate, minimum_samples, writes, name)

    def site(self, name: str) -> Site:
        """The site of that name; KeyError if there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise KeyError(name)

    def site_module(self, site: Site) -> torch.nn.Linear | torch.nn.Conv1d:
        """The torch module that holds the site's weight."""
        module = self.module.get_submodule(site.name)
        assert isinstance(module, torch.nn.Linear | torch.nn.Conv1d)
        return module

    def share_groups(self) -> Iterator[tuple[Site, ...]]:
        """Sites that must share a width, group by group, in execution order."""
        groups: dict[str, list[Site]] = {}
        for site in self.sites:
            groups.setdefault(site.share_group, []).append(site)
        return (tuple(group) for group in groups.values())

    @property
    def session(self) -> TorchSession:
        """The full-precision model as what transcribes runs it."""
        return TorchSession(self.module, self.graphs)

    def inputs(self, samples: FloatArray) -> tuple[torch.Tensor, ...]:
        """What `module`, or a quantised copy of it, is called on for one clip of samples [T].

        The model's input, and of a model that writes token after token also the tokens that it writes at full
        precision: each site then runs once in a call, on the very steps of that decoding.
        """
        return tuple(torch.from_numpy(value) for value in self.processor.inputs(self.session, samples))

    def logits(self, samples: FloatArray) -> FloatArray:
        """Full-precision logits [frames, vocabulary] of one clip of samples [T] at the model's rate."""
        return self.processor.logits(self.session, samples)

    def transcribe(self, samples: FloatArray, options: DecodingOptions | None = None) -> str:
        """Transcript, or label, of one clip of samples [T] at the model's rate.

        Raises InputError, one line, where the options ask for what the model cannot do.
        """
        return self.processor.listen(self.session, samples, options).text
