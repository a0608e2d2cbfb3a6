"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitvox.request import (
    Activations,
    Calibration,
    Cost,
    Effort,
    Kernels,
    Method,
    Order,
    Reduction,
    Rounding,
    Storage,
    Target,
    Tier,
)

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder that `bitvox compile --out` wrote.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
LanguageOption = Annotated[
    str | None,
    typer.Option(help="Spoken language, by code or English name; where left out, it is detected. Whisper."),
]
TaskOption = Annotated[str, typer.Option(help="transcribe, or translate into English. Whisper.")]
BeamsOption = Annotated[
    int,
    typer.Option(help="Hypotheses that the search keeps; 1 is fastest. Whisper and Moonshine.", min=1),
]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads that the runtime may use.", min=1)]

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Hub id, local folder in the hub's layout, or one that ships with bitvox: [b]reference-ctc[/b], "
        "[b]reference-whisper[/b], [b]reference-keywords[/b].",
    ),
]
AudioOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Recordings of the voice, without labels: wav, flac, ogg, opus or mp3 at any rate. "
        "A quarter is kept out of calibration, to judge the bundle with.",
    ),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Ceiling on the bytes of the whole bundle: 45MB, 43MiB, 900kB."),
]
TargetOption = Annotated[Target, typer.Option(help="Runtime that will run the bundle.")]
MethodOption = Annotated[
    Method,
    typer.Option(
        help="[b]auto[/b]: the widths of least cost under the budget; [b]myqasr[/b]: as the paper has it; "
        "[b]uniform[/b]: one width for all."
    ),
]
EffortOption = Annotated[Effort, typer.Option(help="How much time auto takes to measure what widths cost.")]
CostOption = Annotated[
    Cost | None,
    typer.Option(
        help="What auto measures widths by: change of the model's own output, its growth with noise, each "
        "layer's error, or myqasr's median. Usual is what the effort says."
    ),
]
RoundingOption = Annotated[
    Rounding | None,
    typer.Option(
        help="[b]nearest[/b] weight by weight; [b]gptq[/b]: to keep each layer's output on the recordings; "
        "[b]compensated[/b]: to make good what earlier layers lost, too (usual for auto)."
    ),
]
OrderOption = Annotated[
    Order,
    typer.Option(
        help="How myqasr walks the layers by sensitivity; [b]min-max[/b] maps it straight to widths."
    ),
]
ReductionOption = Annotated[
    Reduction,
    typer.Option(
        help="What a layer's sensitivity pools its outputs by; or how far the model's output moves with that "
        "layer alone at 4 bits: [b]kl[/b], [b]l1[/b], [b]l2[/b], [b]frobenius[/b]."
    ),
]
CalibrationOption = Annotated[
    Calibration,
    typer.Option(
        help="How ranges and scales are found: the extremes seen, or searched so that each layer's output "
        "stays near ([b]cosine[/b]) or the text does ([b]hessian[/b], the one option that back-propagates)."
    ),
]
TierOption = Annotated[
    Tier,
    typer.Option(
        help="[b]default[/b]: a scale per output channel; [b]paper[/b]: one per layer, as published."
    ),
]
ActivationsOption = Annotated[
    Activations,
    typer.Option(help="Inputs of the layers: calibrated 8-bit, 8-bit ranged at each call, or float."),
]
StorageOption = Annotated[
    Storage,
    typer.Option(
        help="[b]packed[/b]: n bits a weight for every n; [b]standard[/b]: ONNX's own INT2, INT4, INT8."
    ),
]
KernelsOption = Annotated[
    Kernels | None,
    typer.Option(
        help="[b]stock[/b]: the runtime's own (usual for onnx); [b]packed[/b]: bitvox's operator library, "
        "which keeps weights at n bits in memory too (usual for executorch)."
    ),
]
AllowFloatOption = Annotated[
    bool, typer.Option("--allow-float", help="Accept layers that the runtime computes in float after all.")
]
ClipsOption = Annotated[
    int | None,
    typer.Option(
        help="Most recordings to calibrate with; without it, some ten minutes of them (quick: one and a "
        "half).",
        min=1,
    ),
]
GenericOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Recordings of anyone, without labels: what is learnt from the voice is mixed with what they "
        "say, which is found once and kept.",
    ),
]
OwnShareOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Weight of the voice beside --generic, 0 to 1; left out, it is chosen on recordings of the "
        "voice that are held out for it.",
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of everything that is drawn.")]
