"""The section on runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitvox.benchmarks.experiments.results import read_document
from bitvox.benchmarks.experiments.runtimes import PairRow, RuntimeRow, RuntimesDocument
from bitvox.benchmarks.experiments.tables import count, listed, origin, percent, points, table


def section(path: Path) -> str:
    """The same budgets everywhere, then one plan everywhere."""
    document = read_document(path, RuntimesDocument)
    parts = ["## One model, three runtimes", origin(document.provenance, document.rows)]
    parts += [budgets_table(document.rows), budgets_sentence(document.rows)]
    if document.summary:
        parts += [_pairs_sentence(document.summary), _pairs_table(document.summary)]
        parts += [
            _disagreements(pair) for pair in document.summary if pair.same_integers and pair.disagreements
        ]
    return "\n\n".join(parts)


def budgets_table(rows: Sequence[RuntimeRow]) -> str:
    """Every bundle, by budget."""
    usual = rows[0].way
    return table(
        ("budget", "runtime", "bytes", "bits", "WER %", f"WER − {usual}"),
        [
            (
                count(row.budget),
                row.way,
                count(row.bytes),
                f"{row.average_bits:.2f}",
                percent(row.words.rate),
                "" if row.way == usual else points(row.difference),
            )
            for row in sorted(rows, key=lambda row: row.budget)
        ],
    )


def budgets_sentence(rows: Sequence[RuntimeRow]) -> str:
    """Whether budgets are kept, and at which the rates lie in each other's intervals."""
    under = sum(row.bytes <= row.budget for row in rows)
    budgets = sorted({row.budget for row in rows})
    agreeing = [budget for budget in budgets if _agree([row for row in rows if row.budget == budget])]
    named = listed([count(budget) for budget in agreeing]) if agreeing else "none of them"
    return (
        f"{under} of {len(rows)} bundles are at or under their budget. The word error rate of every runtime "
        f"is in the interval of every other at {len(agreeing)} of {len(budgets)} budgets ({named}). The "
        "runtimes need different bytes beside the weights, which at a tight budget are bits a weight."
    )


def _agree(rows: Sequence[RuntimeRow]) -> bool:
    """Whether each rate is in the interval of each other."""
    rates = [row.words.rate for row in rows]
    return all(
        (inside.low or 0) <= (rate.percent or 0) <= (inside.high or 0) for rate in rates for inside in rates
    )


def _pairs_sentence(pairs: Sequence[PairRow]) -> str:
    first = pairs[0]
    return (
        f"One plan in all of them, that of {first.first} at {count(first.budget)} bytes "
        f"({first.average_bits:.2f} bits), on {first.clips} clips. Packed kernels compute the same integers "
        "from the same activations in both runtimes; stock ONNX Runtime also rounds the output of every "
        "convolution to 8 bits. Norms and attention between the sites are float32 and are added up in "
        "another order in each runtime; where that moves an activation to the neighbouring code, all that "
        "follows moves too, and a letter that is nearly as likely as another may change:"
    )


def _pairs_table(pairs: Sequence[PairRow]) -> str:
    return table(
        ("runtimes", "same integers", "identical transcripts"),
        [
            (
                f"{pair.first} and {pair.second}",
                "yes" if pair.same_integers else "no",
                f"{pair.clips - len(pair.disagreements)} of {pair.clips}",
            )
            for pair in pairs
        ],
    )


def _disagreements(pair: PairRow) -> str:
    return f"Where {pair.first} and {pair.second} differ:\n\n" + table(
        ("recording", pair.first, pair.second),
        [(clip.recording, clip.first, clip.second) for clip in pair.disagreements],
    )
