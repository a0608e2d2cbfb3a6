"""Trains the reference encoder-decoder.

`python -m bitvox.benchmarks.reference_model.train_whisper --out RUN --hours H`

Whisper's structure (Radford et al. 2022) from random weights, with a window of 10 s in place of 30. Three
things make attention find the audio within an hour on two cores: CTC heads on the encoder, which only
training has; the reference CTC model, which for the first part of the time shows the encoder frame by frame
which letters it hears; and windows that are mostly cut to the clip, since a whole one costs three times as
much. A decoder learns texts by heart even faster than CTC does, so nearly half of the clips are words of
AN4's training speakers joined in a new order, and some of the tokens that it reads are wrong on purpose.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from .data import SAMPLE_RATE, Clip, JoinedClips, Mixture
from .evaluate import generate
from .splicing import WordStock, cut_words
from .synthesis import PhonemeTable
from .train import ASSETS, build_model
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
from .whisper_text import TEXT_TOKENS, build_tokenizer, generation_config
from .windows import WINDOW_S, Windows, masked, placed, short, silence

LONGEST_TEXT = 64
BATCH_S = 28.0
# A whole window is mostly silence, which is cheap to learn and costly to compute.
FULL_WINDOW = {"early": 0.1, "late": 0.5}
TAUGHT_UNTIL = 0.4
PHONEME_LAYER = 4
LESSON_WEIGHT, CHARACTER_WEIGHT = 2.0, 0.5
LABEL_SMOOTHING, WRONG_TOKENS = 0.1, 0.12
# Shares of the draws.
EARLY = {
    "an4": 0.22,
    "spliced": 0.46,
    "speechocean762": 0.04,
    "spelling": 0.22,
    "sentences": 0.03,
    "silence": 0.03,
}
LATE = {
    "an4": 0.30,
    "spliced": 0.44,
    "speechocean762": 0.03,
    "spelling": 0.18,
    "sentences": 0.02,
    "silence": 0.03,
}


def build_config(processor: WhisperProcessor) -> WhisperConfig:
    """A small Whisper for the processor's vocabulary and window."""
    number = processor.tokenizer.convert_tokens_to_ids
    end = number("<|endoftext|>")
    return WhisperConfig(
        vocab_size=len(processor.tokenizer),
        num_mel_bins=processor.feature_extractor.feature_size,
        d_model=192,
        encoder_layers=6,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        max_source_positions=processor.feature_extractor.nb_max_frames // 2,
        max_target_positions=LONGEST_TEXT,
        dropout=0.1,
        decoder_start_token_id=number("<|startoftranscript|>"),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def build_whisper(processor: WhisperProcessor) -> WhisperForConditionalGeneration:
    """The model with random weights, ready to train."""
    config = build_config(processor)
    # On short windows the plain products of eager attention are faster on a CPU than the fused kernel.
    config._attn_implementation = "eager"
    model = WhisperForConditionalGeneration(config).float()
    model.generation_config = generation_config(processor.tokenizer, LONGEST_TEXT)
    # The drawing of dropout masks for the encoder costs more time than it is worth beside augmentation.
    for layer in model.model.encoder.layers:
        layer.dropout = 0.0
    return model


class WhisperRecipe(TextRecipe[Windows]):
    """The encoder-decoder, its CTC heads, and the CTC model that teaches it."""

    model: WhisperForConditionalGeneration
    heads: torch.nn.ModuleDict

    def __init__(self, settings: Settings, sources: dict[str, list[Clip]]) -> None:
        torch.manual_seed(settings.seed)
        # AN4's few texts count more than once, so that its words become whole tokens.
        kinds = ("an4", "an4", "an4", "speechocean762", "spelling")
        written = [clip.text for kind in kinds for clip in sources[kind]]
        tokenizer = build_tokenizer(written, WINDOW_S)
        extractor = WhisperFeatureExtractor(chunk_length=round(WINDOW_S))
        self.processor = WhisperProcessor(extractor, tokenizer)
        self.characters = Wav2Vec2Processor.from_pretrained(ASSETS).tokenizer
        self.phonemes = PhonemeTable([clip.text for clips in sources.values() for clip in clips])
        self.teacher = build_model(str(ASSETS)).eval().requires_grad_(False)
        self.model = build_whisper(self.processor)
        width = self.model.config.d_model
        sizes = {"characters": len(self.characters), "phonemes": self.phonemes.size}
        self.heads = torch.nn.ModuleDict({name: torch.nn.Linear(width, n) for name, n in sizes.items()})
        modules: tuple[torch.nn.Module, ...] = (self.model, self.heads, self.teacher)
        for module in modules:
            module.to(device())
        aligner = Wav2Vec2ForCTC.from_pretrained(ASSETS, dtype=torch.float32)
        stock = WordStock(cut_words(sources["an4"], aligner, Wav2Vec2Processor.from_pretrained(ASSETS)))
        draws = {name: choice(clips) for name, clips in sources.items()}
        draws |= {"an4": JoinedClips(sources["an4"], 0.4).draw, "spliced": stock.draw, "silence": silence}
        self.mixture = Mixture({name: short(draw) for name, draw in draws.items()})

    def losses(self, batch: Windows, progress: float) -> dict[str, torch.Tensor]:
        """Of the text, of the characters and phonemes that the encoder hears, and of the teacher's lesson."""
        features = masked(batch.features.to(device()))
        inputs, labels = self.targets(batch.texts)
        whole = features.shape[2] == 2 * self.model.config.max_source_positions
        with torch.autocast(device().type, dtype=torch.bfloat16):
            hidden = self.encode(features)
            decoder: Any = self.model.model.decoder
            read = decoder(input_ids=inputs, encoder_hidden_states=hidden[-1], use_cache=False)
            scores = self.model.proj_out(read.last_hidden_state)
            characters = self.heads["characters"](hidden[-1])
            phonemes = self.heads["phonemes"](hidden[PHONEME_LAYER - 1])
            taught = progress < TAUGHT_UNTIL and not whole
            lesson = self.lesson(batch.audio.to(device()), characters) if taught else None
        text = functional.cross_entropy(
            scores.float().flatten(0, 1), labels.flatten(), label_smoothing=LABEL_SMOOTHING
        )
        letters = [self.characters(text).input_ids for text in batch.texts]
        sounds = [self.phonemes.encode(text) for text in batch.texts]
        losses = {
            "loss": text,
            "character_loss": CHARACTER_WEIGHT * ctc_loss(characters, letters),
            "phoneme_loss": 0.5 * ctc_loss(phonemes, sounds),
        }
        return losses if lesson is None else {**losses, "lesson": LESSON_WEIGHT * lesson}

    def encode(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Outputs of the encoder's layers, the last one normalised; a window may be a shorter one."""
        encoder: Any = self.model.model.encoder
        hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(features)))).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        hidden = functional.dropout(hidden, encoder.dropout, encoder.training)
        outputs = []
        for layer in encoder.layers:
            hidden = layer(hidden, None)
            outputs.append(hidden)
        return [*outputs[:-1], encoder.layer_norm(hidden)]

    def lesson(self, audio: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Cross entropy of the character head and the CTC model, whose frames are as long.

        Letters are rarer than blanks and say more, so their frames weigh more.
        """
        with torch.no_grad():
            shown = self.teacher(audio).logits.float().softmax(-1)
        frames = min(shown.shape[1], logits.shape[1])
        shown, heard = shown[:, :frames], functional.log_softmax(logits.float(), -1)[:, :frames]
        weight = 1.3 - shown[..., 0]
        return -((shown * heard).sum(-1) * weight).sum() / weight.sum()

    def targets(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Decoder inputs, some of their tokens replaced, and labels, -100 where nothing is learned.

        A token that may be wrong cannot be trusted to tell the next one: the decoder has to listen.
        """
        tokenizer = self.processor.tokenizer
        prompt, end = tokenizer.prefix_tokens, tokenizer.eos_token_id
        rows = [tokenizer(f" {t}", add_special_tokens=False).input_ids if t else [] for t in texts]
        longest = max(len(row) for row in rows) + len(prompt)
        inputs = torch.full((len(rows), longest), end)
        labels = torch.full((len(rows), longest), -100)
        first = len(prompt) - 1
        for index, row in enumerate(rows):
            inputs[index, : len(prompt) + len(row)] = torch.tensor([*prompt, *row])
            labels[index, first : len(prompt) + len(row)] = torch.tensor([*row, end])
        wrong = torch.rand(inputs.shape) < WRONG_TOKENS
        wrong[:, : len(prompt)] = False
        inputs = torch.where(wrong, torch.randint(256, TEXT_TOKENS, inputs.shape), inputs)
        return inputs.to(device()), labels.to(device())

    def batches(self, number: int, late: bool) -> Iterator[Windows]:
        """Batches from one pool of clips."""
        rng = np.random.default_rng(number)
        for batch in self.mixture.batches(LATE if late else EARLY, number, seconds=BATCH_S):
            full = rng.random() < FULL_WINDOW["late" if late else "early"]
            # Whole windows hold fewer clips, for about the same time and memory a step.
            most = round(1.5 * BATCH_S / WINDOW_S) if full else len(batch.texts)
            kept = rng.permutation(len(batch.texts))[:most]
            rows, audio = placed(batch.audio[kept], full, rng)
            features = self.processor.feature_extractor(
                list(rows), sampling_rate=SAMPLE_RATE, return_tensors="pt", padding="longest"
            ).input_features
            yield Windows(features, torch.from_numpy(audio), tuple(batch.texts[index] for index in kept))

    def transcribe(self, model: torch.nn.Module, clips: Sequence[Clip]) -> list[str]:
        """Greedy transcripts."""
        assert isinstance(model, WhisperForConditionalGeneration)
        return generate(model, self.processor, clips)

    def export(self, model: torch.nn.Module, folder: Path) -> None:
        """Writes model and processor."""
        assert isinstance(model, WhisperForConditionalGeneration)
        copy.deepcopy(model).half().cpu().save_pretrained(folder)
        self.processor.save_pretrained(folder)


def main() -> None:
    """Command line of this module."""
    values = argument_parser("Train the reference encoder-decoder.").parse_args()
    join_processes()
    # From random weights, unlike the CTC model, so the rates are higher; and over fewer steps.
    rates = {"adam_peak": 1e-3, "muon_peak": 1.6e-3}
    settings = Settings(values.out, values.hours, values.seed, **rates, late_from=0.72, ema_decay=0.998)
    settings.out.mkdir(parents=True, exist_ok=True)
    Trainer(settings, WhisperRecipe(settings, load_sources(settings))).run()


if __name__ == "__main__":
    main()
