"""The section on one step of Whisper's decoder."""

from __future__ import annotations

from pathlib import Path

from bitvox.benchmarks.experiments.decoder_step import FP32_GOAL, PEER_GOAL, StepDocument
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
