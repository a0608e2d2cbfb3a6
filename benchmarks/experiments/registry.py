"""Every experiment, in the order of the page of results. A new one is a module, a report and a line here."""

from __future__ import annotations

from bitvox.benchmarks.experiments import (
    ablations,
    clips,
    decoder_step,
    domains,
    full_size,
    gender,
    head_to_head,
    keywords,
    languages,
    levers,
    planning_time,
    prediction,
    real_speech,
    report_decoder_step,
    report_domains,
    report_full_size,
    report_gender,
    report_head_to_head,
    report_keywords,
    report_languages,
    report_levers,
    report_planning_time,
    report_prediction,
    report_real_speech,
    report_runtimes,
    report_speakers,
    report_variants,
    report_voices,
    runtimes,
    speakers,
    voices,
)
from bitvox.benchmarks.experiments.experiment import Experiment
from bitvox.errors import InputError

EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "voices",
        "a bundle for every test speaker of AN4 at five budgets: under budget, and heard how well",
        voices.measure,
        report_voices.section,
    ),
    Experiment(
        "real-speech",
        "full precision, uniform widths and myQASR as bundles on AN4 and speechocean762, at equal bytes",
        real_speech.measure,
        report_real_speech.section,
    ),
    Experiment(
        "head-to-head",
        "every allocation with every rounding at equal true bytes on AN4",
        head_to_head.measure,
        report_head_to_head.section,
        report_head_to_head.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "head-to-head-minutes",
        "the same of the default method and myQASR with ten minutes of audio to calibrate from",
        head_to_head.measure_minutes,
        report_head_to_head.section,
        report_head_to_head.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "head-to-head-offsets",
        "the same at 3.5 to 2.5 bits, judged on every recording at eight offsets: smaller differences",
        head_to_head.measure_offsets,
        report_head_to_head.section,
        report_head_to_head.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "keywords",
        "keywords of twenty speakers: calibrated on the speaker, on another, on a mix, on nobody",
        keywords.measure,
        report_keywords.section,
        report_keywords.figure,
        takes=frozenset({"limit"}),
    ),
    Experiment(
        "languages",
        "a multilingual model calibrated on one language and judged on another, every pair",
        languages.measure,
        report_languages.section,
        report_languages.figure,
    ),
    Experiment(
        "ablations",
        "what each choice of myQASR is worth: sensitivity, order, unit, calibration, clips, both tiers",
        ablations.measure,
        report_variants.section,
        report_variants.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "clips",
        "how far down clips can go: the default method on fewer, more and shorter recordings",
        clips.measure,
        report_variants.section,
        report_variants.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "domains",
        "calibrated on one kind of audio, used on another: noise, rooms, telephones, accents",
        domains.measure,
        report_domains.section,
        report_domains.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "prediction",
        "whether the median, or any other score or cost, foretells what quantising a layer costs",
        prediction.measure,
        report_prediction.section,
        report_prediction.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "gender",
        "calibrated on women, men, both, nobody: judged on women and men of AN4 and speechocean762",
        gender.measure,
        report_gender.section,
        report_gender.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "speakers",
        "calibrated on the user, on others alike and unlike, a mix, nobody; shares of the user",
        speakers.measure,
        report_speakers.section,
        report_speakers.figure,
        splits=("dev", "test"),
    ),
    Experiment(
        "prediction-conformer",
        "the same of a trained conformer that names keywords",
        prediction.measure_conformer,
        report_prediction.section,
        report_prediction.figure,
        takes=frozenset({"limit"}),
    ),
    Experiment(
        "levers",
        "what was tried for rounding at 2 and 3 bits, and what each thing is worth",
        levers.measure,
        report_levers.section,
        splits=("dev",),
    ),
    Experiment(
        "runtimes",
        "the same budgets in three runtimes: error rates, and whether the same plan writes the same text",
        runtimes.measure,
        report_runtimes.section,
    ),
    Experiment(
        "full-size",
        "five structures of full size with random weights: bytes, compile time, memory, speed",
        full_size.measure,
        report_full_size.section,
        splits=(),
        takes=frozenset(),
    ),
    Experiment(
        "planning-time",
        "what each effort takes on wav2vec2-base's structure with 32 recordings of 10 seconds",
        planning_time.measure,
        report_planning_time.section,
        splits=(),
        takes=frozenset(),
    ),
    Experiment(
        "decoder-step",
        "one step of Whisper's decoder at three sizes: packed weights beside float32 and int4",
        decoder_step.measure,
        report_decoder_step.section,
        splits=(),
        takes=frozenset(),
    ),
)


def find(name: str) -> Experiment:
    """The experiment of that name; InputError with all names where there is none."""
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            return experiment
    names = ", ".join(experiment.name for experiment in EXPERIMENTS)
    raise InputError(f"experiment '{name}': unknown; there are {names}")
