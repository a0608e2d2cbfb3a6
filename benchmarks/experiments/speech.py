"""The recordings that experiments read, and how clips are drawn from them: by seed, never by hand."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.dataset import Dataset, Utterance, read_dataset
from bitvox.benchmarks.experiments.results import REPOSITORY
from bitvox.errors import InputError

AN4, SPEECHOCEAN, COMMANDS = "an4", "speechocean762", "arabic_commands"


def speech_folder() -> Path:
    """`BITVOX_SPEECH`, else `../shared/speech` beside the checkout; InputError when it is not there."""
    folder = Path(os.environ.get("BITVOX_SPEECH") or REPOSITORY.parent / "shared" / "speech")
    if not folder.is_dir():
        raise InputError(f"{folder}: no recordings there; set BITVOX_SPEECH to the folder that holds {AN4}")
    return folder


def read_split(speech: Path, name: str, split: str) -> Dataset:
    """One split of one data set."""
    return read_dataset(speech / name / "manifest.csv", split)


def by_speaker(dataset: Dataset) -> dict[str, list[Utterance]]:
    """Recordings of each speaker, speakers sorted."""
    found: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in dataset.utterances:
        found[utterance.speaker or ""].append(utterance)
    return dict(sorted(found.items()))


def stratified(dataset: Dataset, count: int | None, seed: int) -> Dataset:
    """About `count` recordings, the same number of every speaker, drawn by seed and left in their order.

    All of them when `count` is None or no smaller; fewer speakers (drawn too) when it is below their number.
    """
    if count is None or count >= len(dataset.utterances):
        return dataset
    draw = random.Random(seed)
    speakers = list(by_speaker(dataset).values())
    if count < len(speakers):
        speakers = draw.sample(speakers, count)
    share = count // len(speakers)
    kept = {
        utterance.path for spoken in speakers for utterance in draw.sample(spoken, min(share, len(spoken)))
    }
    return Dataset(
        dataset.origin, tuple(utterance for utterance in dataset.utterances if utterance.path in kept)
    )


def draw_clips(dataset: Dataset, count: int, seed: int) -> list[Utterance]:
    """That many recordings of any speakers, drawn by seed."""
    return random.Random(seed).sample(dataset.utterances, min(count, len(dataset.utterances)))


def gather(utterances: Sequence[Utterance], folder: Path) -> Path:
    """Copies of the recordings in one new folder, as `--audio` takes them."""
    folder.mkdir(parents=True)
    for utterance in utterances:
        shutil.copyfile(utterance.path, folder / utterance.path.name)
    return folder


def described(dataset: Dataset) -> str:
    """Recordings and speakers, in words."""
    speakers = {utterance.speaker for utterance in dataset.utterances}
    return f"{len(dataset.utterances)} recordings of {len(speakers)} speakers"
