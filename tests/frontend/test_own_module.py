"""A module of the user's own: compiled, run without torch, and refused in one line where it cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import own_front_end
import pytest
import soundfile
import torch
from torch.nn import functional

import bitvox
from support import noise_clips

RATE = 8000


class Recogniser(torch.nn.Module):
    """Two convolutions, one layer of attention, a head."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first = torch.nn.Conv1d(channels, 32, 3, stride=2, padding=1)
        self.second = torch.nn.Conv1d(32, 32, 3, padding=1)
        self.query, self.key, self.value = (torch.nn.Linear(32, 32) for _ in range(3))
        self.norm, self.dropout = torch.nn.LayerNorm(32), torch.nn.Dropout(0.5)
        self.letters = torch.nn.Linear(32, len(own_front_end.LETTERS))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, T, channels] -> [B, T / 2, letters]."""
        hidden = functional.relu(self.second(functional.relu(self.first(features.transpose(1, 2)))))
        hidden = hidden.transpose(1, 2)
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2) / 32**0.5
        hidden = self.norm(hidden + torch.softmax(scores, dim=-1) @ self.value(hidden))
        return self.letters(self.dropout(hidden))


def from_module(module: torch.nn.Module, **changes: object) -> bitvox.SpeechModel:
    arguments = {
        "features": own_front_end.features,
        "decode": own_front_end.decode,
        "sampling_rate": RATE,
        **changes,
    }
    return bitvox.SpeechModel.from_module(module, **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser()


@pytest.fixture(scope="module")
def model(recogniser: Recogniser) -> bitvox.SpeechModel:
    return from_module(recogniser)


def test_it_computes_what_the_module_computes(recogniser: Recogniser, model: bitvox.SpeechModel) -> None:
    assert recogniser.training  # the user's own is left as it was
    recogniser_now = Recogniser().eval()
    recogniser_now.load_state_dict(recogniser.state_dict())
    for samples in noise_clips(2):
        with torch.inference_mode():
            expected = recogniser_now(torch.from_numpy(own_front_end.features(samples))[None])[0].numpy()
        np.testing.assert_allclose(model.logits(samples), expected, atol=1e-6)
        assert model.transcribe(samples) == own_front_end.decode(expected)


def test_sites_are_found_by_running_it(model: bitvox.SpeechModel) -> None:
    names = ["first", "second", "query", "key", "value", "letters"]
    assert [site.name for site in model.sites] == names
    assert [site.role for site in model.sites] == ["conv", "conv", *["linear"] * 3, "head"]
    assert [len(group) for group in model.share_groups()] == [1, 1, 3, 1]
    assert model.processor.samples_per_frame == 320
    assert model.processor.outputs == len(own_front_end.LETTERS)


def test_a_change_of_weights_or_of_code_is_another_model(recogniser: Recogniser) -> None:
    class Louder(Recogniser):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(features)

    other = Louder()
    other.load_state_dict(recogniser.state_dict())
    found = {from_module(module).fingerprint for module in (recogniser, other, Recogniser())}
    assert len(found) == 3
    assert from_module(recogniser).fingerprint in found


def test_a_bundle_runs_where_there_is_no_torch(model: bitvox.SpeechModel, tmp_path: Path) -> None:
    (tmp_path / "voice").mkdir()
    for index, samples in enumerate(noise_clips(4, 2 * RATE)):
        soundfile.write(tmp_path / "voice" / f"{index}.wav", samples, RATE)
    report = bitvox.compile_bundle(
        bitvox.CompileRequest(model, audio=tmp_path / "voice", budget=60_000, out=tmp_path / "bundle")
    )
    assert report.bytes <= 60_000
    ours = bitvox.open_runner(bitvox.Bundle.open(report.out)).transcribe(noise_clips()[0])
    np.save(tmp_path / "clip.npy", noise_clips()[0])
    program = (
        "import sys; sys.modules['torch'] = None; import bitvox, numpy; from pathlib import Path\n"
        "runner = bitvox.open_runner(bitvox.Bundle.open(Path('bundle')))\n"
        "print(runner.transcribe(numpy.load('clip.npy')))"
    )
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    trusted = _run(program, {**path, "BITVOX_TRUST": "own_front_end"}, tmp_path)
    assert trusted.stdout.strip() == ours, trusted.stderr
    refused = _run(program, path, tmp_path)
    assert "set BITVOX_TRUST=own_front_end" in refused.stderr.splitlines()[-1]
    command = (
        "import sys; from bitvox.cli import main; sys.argv[1:] = 'transcribe', 'bundle', 'voice'; main()"
    )
    once = _run(command, path, tmp_path)
    assert (once.returncode, once.stdout) == (2, "")
    assert once.stderr.count("BITVOX_TRUST") == 1


def _run(program: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, cwd=folder
    )


def test_a_label_for_the_whole_clip() -> None:
    class Spotter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = torch.nn.Conv1d(1, 16, 40, stride=20), torch.nn.Linear(16, 8)

        def forward(self, samples: torch.Tensor) -> torch.Tensor:
            hidden = functional.relu(self.conv(samples[:, None]))
            return self.head(hidden.transpose(1, 2)).mean(dim=1, keepdim=True)

    model = from_module(Spotter(), features=None, writes="label")
    assert model.family == "classifier"
    assert [site.role for site in model.sites] == ["input_conv", "head"]
    assert model.logits(noise_clips()[0]).shape == (1, 8)


class _Twice(Recogniser):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features) + super().forward(features)


class _Recurrent(Recogniser):
    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.nn.GRU(16, 16)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(self.memory(features)[0])


class _Peeking(Recogniser):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(-features if features.sum() > 0 else features)


class _Flat(Recogniser):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features)[0]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (_Twice, r"layer 'first' \(Conv1d\) cannot be handled: it runs 2 times"),
        (_Recurrent, r"layer 'memory' \(GRU\) cannot be handled: only Linear and Conv1d"),
        (_Peeking, r"model '_Peeking': cannot be traced"),
        (_Flat, r"model '_Flat': gives \[\d+, 8\] .*give logits of shape \[1, frames, outputs\]"),
        (lambda: Recogniser(5), r"model 'Recogniser': fails on 0.1 s of silence"),
        (lambda: torch.nn.Linear(16, 8), r"model 'Linear': is one layer"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(
    module: Callable[[], torch.nn.Module], message: str
) -> None:
    with pytest.raises(bitvox.InputError, match=message) as caught:
        from_module(module())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (lambda logits: "", "decode: not a function that a module defines by name"),
        (own_front_end.torch_decode, "function 'own_front_end:torch_decode': fails where there is no torch"),
    ],
)
def test_functions_that_a_bundle_could_not_call_are_refused(
    recogniser: Recogniser, decode: Callable[[object], str], message: str
) -> None:
    with pytest.raises(bitvox.InputError, match=message):
        from_module(recogniser, decode=decode)
