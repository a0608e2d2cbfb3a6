"""Trains a classifier of spoken digits in five languages, for the experiment on languages alone.

`python -m bitvox.benchmarks.reference_model.train_languages --data DIR --out RUN --hours H`

DIR is what `make_languages` wrote. The encoder starts as that of reference-ctc; a label is a language and a
digit, so that the model has to tell words apart that two languages share but for their accent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import Wav2Vec2ForSequenceClassification

from bitvox.benchmarks.dataset import read_dataset

from .data import Clip, read_clip
from .make_languages import LANGUAGES
from .train import ASSETS, build_model
from .train_keywords import KeywordRecipe
from .training import Settings, Trainer, argument_parser, join_processes


def load_languages(folder: Path) -> list[Clip]:
    """The training clips of all languages, their labels as texts."""
    return [
        read_clip(one.path, one.text or "", one.speaker or "")
        for language in LANGUAGES
        for one in read_dataset(folder / language / "manifest.csv", "train").utterances
    ]


def build_classifier(labels: Sequence[str]) -> Wav2Vec2ForSequenceClassification:
    """The encoder of reference-ctc under a new head."""
    recogniser = build_model(str(ASSETS))
    config = recogniser.config
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    model = Wav2Vec2ForSequenceClassification(config).float()
    model.wav2vec2 = recogniser.wav2vec2
    return model


def main() -> None:
    """Command line of this module."""
    parser = argument_parser("Train a classifier of spoken digits in five languages.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the languages' folders")
    values = parser.parse_args()
    join_processes()
    settings = Settings(values.out, values.hours, values.seed, ema_decay=0.99)
    settings.out.mkdir(parents=True, exist_ok=True)
    Trainer(settings, KeywordRecipe(settings, load_languages(values.data), build_classifier)).run()


if __name__ == "__main__":
    main()
