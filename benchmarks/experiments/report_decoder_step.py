"""The section on one step of Whisper's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.decoder_step import FP32_GOAL, PEER_GOAL, StepDocument, StepRow
from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.tables import count, origin, table


def section(path: Path) -> str:
    """One row for every size and form."""
    document = read_document(path, StepDocument)
    headers = ("Whisper", "form", "bytes", "step, ms", "× float32")
    lines = [
        (
            row.size,
            form.name,
            count(form.bytes),
            f"{1000 * form.step.median:.2f}",
            f"{form.speedup.median:.2f} [{form.speedup.low:.2f}, {form.speedup.high:.2f}]",
        )
        for row in document.rows
        for form in row.forms
    ]
    over = "; ".join(f"{row.size} {row.over_peers.median:.2f}" for row in document.rows)
    return "\n\n".join(
        [
            "## A step of Whisper's decoder",
            origin(document.provenance, document.rows),
            "One token of one hypothesis, random weights of full size, one thread; all forms take turns in "
            f"one process. Goals: {FP32_GOAL:g} times as fast as float32 and at 4 bits {PEER_GOAL:g} times "
            f"as fast as the faster of the peers, which is: {over}.",
            table(headers, lines),
        ]
    )


def goals_table(rows: Sequence[StepRow]) -> str:
    """A line a size: the step in float32, in the fastest form of the peers, and with 4 packed bits."""
    lines = []
    for row in rows:
        usual, ours = row.forms[0], next(form for form in row.forms if form.name == "packed, 4 bits")
        peer = min((form for form in row.forms[1:] if "ORT" in form.name), key=lambda form: form.step.median)
        times = [f"{1000 * form.step.median:.1f}" for form in (usual, peer, ours)]
        met = ours.speedup.median >= FP32_GOAL and row.over_peers.median >= PEER_GOAL
        lines.append(
            (
                row.size,
                times[0],
                f"{times[1]} ({peer.name})",
                times[2],
                f"{ours.speedup.median:.2f}",
                f"{row.over_peers.median:.2f}",
                "yes" if met else "no",
            )
        )
    headers = (
        "Whisper",
        "float32, ms",
        "fastest peer, ms",
        "4 bits packed, ms",
        "× fp32",
        "× peer",
        "goals met",
    )
    return table(headers, lines)
