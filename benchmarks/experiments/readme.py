"""The figures in README.md, written between their markers from the results files: no number is typed.

python -m bitvox.benchmarks.experiments.readme
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitvox.benchmarks import demo_runtimes
from bitvox.benchmarks.demo import HEADER, Row, cells
from bitvox.benchmarks.demo_runtimes import RuntimeRow
from bitvox.benchmarks.experiments.decoder_step import FP32_GOAL, PEER_GOAL, StepDocument
from bitvox.benchmarks.experiments.full_size import FullSizeDocument
from bitvox.benchmarks.experiments.head_to_head import HeadDocument
from bitvox.benchmarks.experiments.report_decoder_step import goals_table
from bitvox.benchmarks.experiments.report_full_size import compile_sentence, compile_table
from bitvox.benchmarks.experiments.report_head_to_head import comparisons
from bitvox.benchmarks.experiments.report_runtimes import budgets_sentence, budgets_table
from bitvox.benchmarks.experiments.results import REPOSITORY, read_document, write_text
from bitvox.benchmarks.experiments.runtimes import RuntimesDocument
from bitvox.benchmarks.experiments.speech import AN4
from bitvox.benchmarks.experiments.supported import supported_table
from bitvox.benchmarks.experiments.tables import percent, table
from bitvox.benchmarks.experiments.variants import VariantDocument
from bitvox.benchmarks.kernels.goals import check
from bitvox.benchmarks.kernels.report import recorded
from bitvox.benchmarks.resident.measure import LENGTHS
from bitvox.benchmarks.resident.report import fastest, goals

RESULTS = REPOSITORY / "benchmarks" / "results"
README = REPOSITORY / "README.md"


def fill(text: str, blocks: dict[str, str]) -> str:
    """The text with every block between `<!-- name -->` and `<!-- /name -->` replaced."""
    for name, block in blocks.items():
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(opening)
        text = f"{before}{opening}{block}\n{closing}{rest.partition(closing)[2]}"
    return text


def blocks(results: Path) -> dict[str, str]:
    """The blocks that the results files can fill, and the table of what can be compiled."""
    found = {"families": supported_table()}
    if (results / "demo.json").exists():
        found["demo"] = _demo(json.loads((results / "demo.json").read_text(encoding="utf-8")))
    if machines := recorded(results):
        found["kernels"] = "\n\n".join(_kernels(machine) for machine in machines)
    if (results / "packed.json").exists():
        found["packed"] = _packed(json.loads((results / "packed.json").read_text(encoding="utf-8")))
    if (results / "decoder_step.json").exists():
        found["decoder"] = _decoder(read_document(results / "decoder_step.json", StepDocument))
    parts = []
    for name in ("head-to-head-minutes", "head-to-head"):
        path = results / f"{name.replace('-', '_')}_test.json"
        if path.exists():
            parts.append(_head_to_head(name, read_document(path, HeadDocument)))
    if (results / "clips_dev.json").exists():
        parts.append(_clips(read_document(results / "clips_dev.json", VariantDocument)))
    if (results / "runtimes.json").exists():
        parts.append(_runtimes(read_document(results / "runtimes.json", RuntimesDocument)))
    if (results / "full_size.json").exists():
        parts.append(_full_size(read_document(results / "full_size.json", FullSizeDocument)))
    if parts:
        found["results"] = "\n\n".join(parts)
    return found


def _demo(record: dict[str, Any]) -> str:
    rows = [Row(**{**row, "ratio": tuple(row["ratio"])}) for row in record["rows"]]
    machine, minutes = record["machine"], record["seconds"] / 60
    return (
        f"{table(HEADER, [cells(row) for row in rows])}\n\n"
        "bits: average width of the quantised weights. WER: on clips kept out of calibration. agreement: "
        "words of the full-precision transcripts that the bundle writes too. time / fp32: one thread, median "
        f"of interleaved runs and quartiles, {machine['cpu']}. The voices are synthetic (espeak-ng). All of "
        f"it took {minutes:.1f} minutes on {machine['cores']} cores.{_demo_runtimes(record)}"
    )


def _demo_runtimes(record: dict[str, Any]) -> str:
    """The same voice in every runtime."""
    rows = [demo_runtimes.cells(RuntimeRow(**row)) for row in record["runtimes"]]
    return f"\n\nThe first voice in 1.80 MB for each runtime:\n\n{table(demo_runtimes.HEADER, rows)}"


KERNEL_ROWS = ((768, 3072, 50), (768, 3072, 250), (768, 3072, 1))
KERNEL_PEERS = ("ort int8", "torch int8", "xnn int8", "xnn 4", "ort 4 g128")


def _kernels(machine: dict[str, Any]) -> str:
    """A few rows of one machine: ours, the fastest peer of 4 or 8 bits, float32; and how the goals went."""
    rows = {(row["k"], row["n"], row["m"]): row["us"] for row in machine["linear"]}
    lines = []
    for shape in KERNEL_ROWS:
        us = rows[shape]
        peer = min(KERNEL_PEERS, key=lambda name: min(us[name]))
        times = [_microseconds(us[f"ours {bits}"]) for bits in (2, 3, 4, 6, 8)]
        lines.append([shape[2], *times, f"{_microseconds(us[peer])} ({peer})", _microseconds(us["ort fp32"])])
    goals = check(machine)
    met = sum(goal.met for goal in goals)
    about = machine["machine"]
    widths = [f"{bits} bits" for bits in (2, 3, 4, 6, 8)]
    return (
        f"{about['cpu']}, path {about['path']}: microseconds of a linear from 768 to 3072 on one thread, "
        f"quantisation of the activations included; {met} of {len(goals)} goals met "
        "([all rows, and what was missed by how much](benchmarks/results/kernels.md)):\n\n"
        f"{table(['rows', *widths, 'fastest of the peers at 4 and 8 bits', 'ORT float32'], lines)}"
    )


def _microseconds(rounds: Sequence[float]) -> str:
    return f"{min(rounds):.0f}"


def _packed(document: dict[str, Any]) -> str:
    """A line a model: what it weighs on disk and in memory, and its time beside float32's and int8's."""
    models = document["models"]
    lines = []
    for name, row in models.items():
        line = [name, f"{row['bytes'] / 1e6:.1f}", f"{row['loaded'] / 1e6:.0f}"]
        for seconds in LENGTHS:
            times = row["times"][str(seconds)]
            line.append(f"{1e3 * times['run']['median']:.0f}")
            for kind in ("fp32", "int8"):
                peer = fastest(document, kind, seconds)
                ours = row["weight_bytes"] is not None
                line.append(f"{times['over'][peer]['median']:.2f}" if ours else "")
        lines.append(line)
    met = goals(document)
    heads = ["model", "MB", "MB loaded"]
    for seconds in LENGTHS:
        heads += [f"{seconds} s, ms", "× fp32", "× int8"]
    about = document["machine"]
    return (
        f"wav2vec2-base's structure at 3 bits beside both runtimes' own ({about['cpu']}, path "
        f"{document['isa']}, 1 thread, `make bench-packed`); × is times faster than the faster of the two of "
        f"that kind; {sum(row[-1] == 'yes' for row in met)} of {len(met)} goals met "
        f"([all, and the time by operator](benchmarks/results/packed.md)):\n\n{table(heads, lines)}"
    )


def _decoder(document: StepDocument) -> str:
    about = document.provenance.machine
    return (
        f"A step of Whisper's decoder, one token of one hypothesis after {document.rows[0].past} others "
        f"({about['cpu']}, 1 thread, `bitvox reproduce decoder-step`); goals: {FP32_GOAL:g} times as fast as "
        f"float32 and {PEER_GOAL:g} times as fast as the faster of ONNX Runtime's int8 and int4:\n\n"
        f"{goals_table(document.rows)}"
    )


def _head_to_head(name: str, document: HeadDocument) -> str:
    found = document.provenance.data
    return (
        f"`reference-ctc` at equal bytes (`bitvox reproduce {name} --split test`), judged on {AN4} "
        f"{found[AN4]}, calibrated on {found['calibration']}; points of WER with 95 % intervals "
        "over speakers and draws; myQASR's order and calibration are those that do best "
        f"on these very recordings:\n\n{comparisons(document.summary)}"
    )


def _clips(document: VariantDocument) -> str:
    """A line a number of whole recordings, the fewest first."""
    found = [one for one in document.summary if one.study == "rounding" and one.name.isdecimal()]
    lines = [
        [one.name, f"{one.clip_seconds:.0f}", percent(one.words), percent(one.divergence)]
        for one in sorted(found, key=lambda one: one.clip_seconds)
    ]
    return (
        f"How much audio it takes: `auto` at {found[0].bits:g} bits (`bitvox reproduce clips`), "
        f"{document.provenance.data[AN4]} of {AN4}, its weights rounded on fewer and on more recordings; "
        "divergence of its output from full precision is in thousandths of a nat a frame:\n\n"
        f"{table(['recordings', 'seconds', 'WER %', 'divergence'], lines)}"
    )


def _runtimes(document: RuntimesDocument) -> str:
    return (
        f"The same model in three runtimes (`make experiments-runtimes`), {document.provenance.data[AN4]} of "
        f"{AN4}:\n\n{budgets_table(document.rows)}\n\n{budgets_sentence(document.rows)}"
    )


def _full_size(document: FullSizeDocument) -> str:
    return (
        "Models of full size with random weights on stock ONNX Runtime (`bitvox reproduce full-size`), "
        "widths by `--method myqasr`; "
        f"time / fp32: {document.rows[0].audio_seconds:g} s of audio on one thread, quartiles in "
        "brackets:\n\n"
        f"{compile_table(document.rows)}\n\n{compile_sentence(document.rows)}"
    )


def main() -> None:
    """Fill README.md."""
    write_text(README, fill(README.read_text(encoding="utf-8"), blocks(RESULTS)))


if __name__ == "__main__":
    main()
