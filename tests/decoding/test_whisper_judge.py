"""What experiments judge of a model that writes token after token: the texts that it writes by itself."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from whisper_checkpoint import write_checkpoint

from bitvox.benchmarks.dataset import Dataset, Utterance
from bitvox.benchmarks.experiments.judge import Judge
from bitvox.progress import no_progress
from bitvox.request import CompileRequest
from bitvox.store import default_store
from bitvox.voice import read_voice


def test_texts_are_those_of_free_decoding(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    clips = []
    for number in range(4):
        samples = (0.1 * generator.standard_normal(16_000)).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", samples, 16_000, subtype="FLOAT")
        clips.append(samples)
    judged = tuple(Utterance(tmp_path / f"{number}.wav", "ann", "the") for number in range(1, 4))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", width=32)
    request = CompileRequest(str(checkpoint), audio=tmp_path / "0.wav")
    voice = read_voice(request, default_store(), no_progress)
    judge = Judge(voice, Dataset(tmp_path, judged), default_store())
    assert list(judge.full) == [voice.model.transcribe(samples) for samples in clips[1:]]

    # Far from the model, so that what it reads differs from what full precision wrote.
    generator = torch.Generator().manual_seed(0)
    other = replace(voice.model, module=_disturbed(voice.model.module, generator))
    heard = judge.hear(other.module)
    assert list(heard.texts) == [other.transcribe(samples) for samples in clips[1:]]
    assert heard.texts != judge.full
    assert heard.divergence > 0


@torch.no_grad()
def _disturbed(module: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    other = copy.deepcopy(module)
    for weight in other.parameters():
        weight += 0.5 * weight.std() * torch.randn(weight.shape, generator=generator)
    return other
