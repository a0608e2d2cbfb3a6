"""How long planning will take and how much memory, told before it starts.

Counted in audio that the model will run over and in multiplications; how fast this machine does either is
tried on the spot, which takes a second or two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bitvox.compiler.frontend.model import Site, SpeechModel
from bitvox.compiler.frontend.threads import single_threaded
from bitvox.compiler.passes import recall
from bitvox.compiler.passes.drift import HELD, input_sizes
from bitvox.compiler.passes.input_moments import FRAMES
from bitvox.compiler.passes.measure_costs import MEASURED, SAMPLED_SECONDS
from bitvox.effort import Measurement
from bitvox.memory import memory
from bitvox.sizes import format_size
from bitvox.voice import Voice

_PROBE_SECONDS, _MATRIX = 3.0, 1024

# Products of a row with H while it is rounded, for GPTQ, for each sweep and to see what it lost; everything
# else that is done with a weight takes as long as so many multiplications.
_PRODUCTS, _WEIGHT = 10, 12_000

# Of K^3 multiplications: what factors H. And matrices of its size that are held at once.
_CUBES, _MATRICES = 0.8, 11

# Of a product of all inputs of a frame with each other: what H takes, which is symmetric.
_SYMMETRIC = 0.6

# Of a pass over an excerpt: what is left where it starts at the site that changed.
_CHANGED = 0.5


@dataclass(frozen=True)
class Estimate:
    """Seconds, where nothing else runs, and the most bytes of memory that are held at once."""

    seconds: float
    memory: int

    def line(self) -> str:
        """In words."""
        minutes = self.seconds / 60
        span = f"{minutes:.0f} min" if minutes >= 1.5 else f"{max(self.seconds, 1):.0f} s"
        return f"about {span} and {format_size(self.memory)} of memory"


@dataclass(frozen=True)
class Trial:
    """What a second of audio takes on this machine.

    Attributes:
        forward: Seconds of one thread to run the model over it.
        speed: Multiplications a second of one thread.
        frames: Of it that each share group reads.
        widest: Bytes of the largest input of a site; `read`: of one for each share group together.
    """

    forward: float
    speed: float
    frames: dict[str, float]
    widest: float
    read: float


def estimate(voice: Voice, how: Measurement, trial: Trial, threads: int) -> Estimate:
    """Of method auto measuring so, on that many cores, with nothing kept from before."""
    model, groups = voice.model, list(voice.model.share_groups())
    audio = sum(samples.size for samples in voice.samples) / model.processor.sampling_rate
    costed = audio if how.sample is None else min(audio, SAMPLED_SECONDS)
    heard = costed + 2 * audio + _passes(how) * len(groups) * min(audio, how.seconds)
    # H while widths are measured, and again on the walk beside what has drifted.
    products = sum(_products(group[0], trial.frames[group[0].share_group] * audio) for group in groups)
    counted = (_SYMMETRIC * (costed / audio + 1) + 1) * products
    for group in groups:
        counted += _rounding(group, len(MEASURED), how.sample) + _rounding(group, 1, None)
    seconds = (heard * trial.forward + counted / trial.speed) / threads
    return Estimate(seconds, _memory(model, groups, trial, audio, how))


def _passes(how: Measurement) -> float:
    """Over the excerpts, for each share group."""
    if how.cost == "divergence":
        return _CHANGED * len(MEASURED) + 2 * how.rounds
    return _CHANGED if how.cost == "noise" else 0


def _products(site: Site, frames: float) -> float:
    """Multiplications of the inputs of all frames that count with each other."""
    inputs = site.weights // site.channels
    if site.conv is None:
        return frames * inputs**2
    if site.conv.stride > 1:
        return min(frames, FRAMES) * site.conv.groups * inputs**2
    return frames * site.conv.groups * inputs**2 / site.shape[2]


def _rounding(group: Sequence[Site], widths: int, sample: int | None) -> float:
    """Multiplications to round a group at so many widths, by whole groups of channels."""
    site = group[0]
    inputs, parts = site.weights // site.channels, 1 if site.conv is None else site.conv.groups
    rows = sum(one.channels for one in group)
    if sample is not None and parts > 1:
        parts, rows = min(parts, -(-sample * parts // rows)), min(rows, sample)
    elif sample is not None:
        rows = min(rows, sample * len(group))
    return parts * _CUBES * inputs**3 + widths * rows * inputs * (_PRODUCTS * inputs + _WEIGHT)


def try_out(voice: Voice) -> Trial:
    """Run the model over the first seconds of a clip, and multiply two matrices.

    Computing time is taken, not time by the clock: what else runs does not count.
    """
    model, rate = voice.model, voice.model.processor.sampling_rate
    clip = max(voice.samples, key=len)[: round(_PROBE_SECONDS * rate)]
    inputs, matrix = model.inputs(clip), torch.ones(_MATRIX, _MATRIX)
    with single_threaded(), torch.inference_mode():
        sizes = input_sizes(model, inputs)  # a first pass is slower than the next
        forward = _computing(lambda: model.module(*inputs))
        product = _computing(lambda: matrix @ matrix)
    seconds = clip.size / rate
    frames = {site.share_group: size / _inputs_a_frame(site) / seconds for site, size in sizes}
    read = [4 * size / seconds for _, size in sizes]
    return Trial(forward / seconds, _MATRIX**3 / product, frames, max(read), sum(read))


def _inputs_a_frame(site: Site) -> int:
    """Numbers of a site's input that an output frame is further on than the one before."""
    return site.shape[1] if site.conv is None else site.shape[1] * site.conv.groups * site.conv.stride


def _computing(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(2):
        started = time.thread_time()
        work()
        taken.append(time.thread_time() - started)
    return min(taken)


def _memory(
    model: SpeechModel, groups: Sequence[Sequence[Site]], trial: Trial, audio: float, how: Measurement
) -> int:
    """Peak of the process: while widths are measured, or while all clips walk through the model."""
    weights = 4 * sum(parameter.numel() for parameter in model.module.parameters())
    sums = sum(4 * group[0].weights // group[0].channels * _lag_inputs(group[0]) for group in groups)
    largest = max(4 * (group[0].weights // group[0].channels) ** 2 for group in groups)
    codes = len(MEASURED) * weights / 4
    kept = min(min(audio, how.seconds) * trial.read, recall.HELD)
    measuring = codes + weights + max(sums + _MATRICES * largest, kept)
    walking = 2 * min(audio * trial.widest, HELD) + 2 * weights + _MATRICES * largest
    return int((memory("VmRSS") or 0) + max(measuring, walking))


def _lag_inputs(site: Site) -> int:
    """Columns of what is kept of H for all groups of channels."""
    if site.conv is None:
        return site.shape[1]
    return site.shape[1] * site.conv.groups if site.conv.stride == 1 else site.weights // site.channels
