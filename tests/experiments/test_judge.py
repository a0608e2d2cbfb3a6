"""The judge keeps what calibrates apart from what is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitvox.benchmarks.experiments.judge import Judge
from bitvox.benchmarks.experiments.speech import gather, read_split
from bitvox.compiler.frontend.audio import read_clip
from bitvox.errors import InputError
from bitvox.progress import no_progress
from bitvox.request import CompileRequest
from bitvox.store import FileStore
from bitvox.voice import read_voice


def test_a_clip_that_is_judged_calibrates_nothing(checkpoint: Path, speech: Path, tmp_path: Path) -> None:
    judged, store = read_split(speech, "an4", "dev"), FileStore(tmp_path / "store")
    audio = gather(read_split(speech, "an4", "train").utterances, tmp_path / "clips")
    judge = Judge(read_voice(CompileRequest(str(checkpoint), audio), store, no_progress), judged, store)
    for utterances in (judged.utterances, read_split(speech, "an4", "test").utterances):
        clips = [read_clip(utterance.path, 16000) for utterance in utterances[:2]]
        if utterances is judged.utterances:
            with pytest.raises(InputError, match=f"{utterances[0].path.name}: calibrates and is judged on"):
                judge.calibrated_on(clips)
        else:
            assert judge.calibrated_on(clips).voice.samples[0] is clips[0].samples
