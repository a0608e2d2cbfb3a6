"""Trains the reference CTC model: `python -m bitvox.benchmarks.reference_model.train --out RUN --hours H`.

Start: `--init` names the folder of a wav2vec2 checkpoint whose encoder (and CTC head, if it has one)
starts the model; by default `first-ctc-english` of the shared models. From random weights
(`--init none`) CTC can stay for long on the plateau where everything is blank, so train a keyword classifier
of this structure first (`Wav2Vec2ForSequenceClassification` on one-second clips, AdamW 8e-4 with
cosine decay, 15 minutes on two cores) and pass its folder to `--init`: all but the head is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Processor
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2PositionalConvEmbedding

from .data import REPOSITORY, Batch, Clip, JoinedClips, Mixture, shared_folder
from .evaluate import transcribe
from .splicing import WordStock, cut_words
from .synthesis import PhonemeTable
from .training import (
    Settings,
    TextRecipe,
    Trainer,
    argument_parser,
    choice,
    ctc_loss,
    device,
    join_processes,
    load_sources,
)

ASSETS = REPOSITORY / "bitvox" / "assets" / "reference-ctc"
PHONEME_LAYER = 4
PHONEME_WEIGHT = 0.5
# Shares of the draws; the last part of the time goes to the domain that the model is measured on.
EARLY = {"an4": 0.24, "spliced": 0.30, "speechocean762": 0.18, "spelling": 0.20, "sentences": 0.08}
LATE = {"an4": 0.36, "spliced": 0.30, "speechocean762": 0.12, "spelling": 0.18, "sentences": 0.04}


class Float32PositionalEmbedding(Wav2Vec2PositionalConvEmbedding):
    """The positional convolution outside autocast: in bfloat16 a grouped one is wrong on CPUs with AMX."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """As its parent, in float32."""
        with torch.autocast(hidden_states.device.type, enabled=False):
            return super().forward(hidden_states.float())


def build_model(init: str) -> Wav2Vec2ForCTC:
    """The model in the shipped structure with the weights of `init` ("none": random) that fit it."""
    config = Wav2Vec2Config.from_pretrained(ASSETS)
    config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks = 0.10, 6, 1
    config.mask_feature_prob, config.mask_feature_length = 0.05, 8
    # The drawing of dropout masks for the widest activations costs more time than it is worth here.
    config.attention_dropout = config.activation_dropout = config.layerdrop = 0.0
    config.dtype = "float32"
    # On short clips the plain products of eager attention are faster on a CPU than the fused kernel.
    config._attn_implementation = "eager"
    model = Wav2Vec2ForCTC(config).float()
    model.wav2vec2.encoder.pos_conv_embed = Float32PositionalEmbedding(config)
    if init != "none":
        own = model.state_dict()
        weights = load_file(Path(init) / "model.safetensors")
        fitting = {k: v.float() for k, v in weights.items() if k in own and own[k].shape == v.shape}
        missing = {key for key in own if key not in fitting and not key.startswith("lm_head")}
        if missing:
            raise ValueError(f"{init}: weights missing or of another shape, such as {sorted(missing)[0]}")
        model.load_state_dict(fitting, strict=False)
        freeze_first_convolutions(model)
    return model


def freeze_first_convolutions(model: Wav2Vec2ForCTC, layers: int = 2) -> None:
    """Keeps the first filters as they are: nearly a third of a step's time, and learned already."""
    extractor = model.wav2vec2.feature_extractor
    extractor.conv_layers[:layers].requires_grad_(False)
    # Else transformers asks for the gradient of the waveform and with it of every frozen layer.
    extractor._requires_grad = False


class CTCRecipe(TextRecipe[Batch]):
    """The CTC model, taught characters at its output and phonemes at a middle layer.

    Phonemes follow the sound more closely than English spelling does: their loss teaches the lower layers in
    a fraction of the steps that the characters alone would take.
    """

    model: Wav2Vec2ForCTC
    heads: torch.nn.Linear

    def __init__(self, settings: Settings, init: str, sources: dict[str, list[Clip]]) -> None:
        torch.manual_seed(settings.seed)
        self.warm_up = settings.warm_up
        self.phonemes = PhonemeTable([clip.text for clips in sources.values() for clip in clips])
        self.processor = Wav2Vec2Processor.from_pretrained(ASSETS)
        self.model = build_model(init)
        self.model.to(device())  # type: ignore[arg-type]  # transformers wraps it without its types
        self.heads = torch.nn.Linear(self.model.config.hidden_size, self.phonemes.size).to(device())
        # The words to splice are cut by the starting checkpoint.
        aligner = Wav2Vec2ForCTC.from_pretrained(init, dtype=torch.float32)
        stock = WordStock(cut_words(sources["an4"], aligner, self.processor))
        draws = {name: choice(clips) for name, clips in sources.items()}
        self.mixture = Mixture({**draws, "an4": JoinedClips(sources["an4"], 0.3).draw, "spliced": stock.draw})

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """CTC losses of the characters and of the phonemes."""
        audio = torch.from_numpy(batch.audio).to(device())
        with torch.autocast(device().type, dtype=torch.bfloat16):
            output = self.model(audio, output_hidden_states=True)
            hidden = output.hidden_states[PHONEME_LAYER]
            # A head that knows nothing yet would undo what the layers below it know.
            taught = hidden.detach() if progress < self.warm_up else hidden
            phoneme_logits = self.heads(taught)
        labels = [self.processor.tokenizer(text).input_ids for text in batch.texts]
        sounds = [self.phonemes.encode(text) for text in batch.texts]
        return {
            "loss": ctc_loss(output.logits, labels),
            "phoneme_loss": PHONEME_WEIGHT * ctc_loss(phoneme_logits, sounds),
        }

    def batches(self, number: int, late: bool) -> Iterator[Batch]:
        """Batches from one pool of clips."""
        return self.mixture.batches(LATE if late else EARLY, number)

    def transcribe(self, model: torch.nn.Module, clips: Sequence[Clip]) -> list[str]:
        """Greedy CTC transcripts."""
        assert isinstance(model, Wav2Vec2ForCTC)
        return transcribe(model, self.processor, clips)

    def export(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes model and processor."""
        assert isinstance(model, Wav2Vec2ForCTC)
        copy.deepcopy(model).half().cpu().save_pretrained(folder)
        self.processor.save_pretrained(folder)


def main() -> None:
    """Command line of this module."""
    parser = argument_parser("Train the reference CTC model.")
    parser.add_argument("--init", help='checkpoint folder or "none"; default: the shared first-ctc-english')
    values = parser.parse_args()
    join_processes()
    init = values.init or str(shared_folder("models", "BITVOX_MODELS") / "first-ctc-english")
    settings = Settings(values.out, values.hours, values.seed)
    settings.out.mkdir(parents=True, exist_ok=True)
    Trainer(settings, CTCRecipe(settings, init, load_sources(settings))).run()


if __name__ == "__main__":
    main()
