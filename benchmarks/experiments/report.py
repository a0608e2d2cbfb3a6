"""`docs/results.md`, written from the results files: numbers and sentences are computed, never typed.

python -m bitvox.benchmarks.experiments.report
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bitvox.benchmarks.experiments.command import run
from bitvox.benchmarks.experiments.registry import EXPERIMENTS
from bitvox.benchmarks.experiments.results import REPOSITORY, write_text

RESULTS = REPOSITORY / "benchmarks" / "results"
DEFAULT_OUT = REPOSITORY / "docs" / "results.md"

_HEAD = """# Results

Written by `python -m bitvox.benchmarks.experiments.report` from `benchmarks/results`; do not edit.

Error rates are corpus-level (all errors over all words) on texts that are case-folded and without
punctuation, after greedy decoding without a language model. Intervals are 95 %, by bootstrap over speakers
(2,000 draws); a difference to full precision is paired: both see the same draws. Where a section does not say
otherwise, activations are 8-bit with calibrated ranges in every quantised row. Bytes are those of all files
of a bundle, by `os.stat`; MB is 10^6 bytes, MiB 2^20."""

_SOURCES = """## Sources of the recordings

- AN4 (CMU; github.com/cmusphinx/an4): spelled names, numbers, dates, addresses. BSD-like licence.
- speechocean762 (github.com/jimbozhang/speechocean762, OpenSLR 101): English sentences read by speakers of
  Mandarin, half of them children. Free for commercial and non-commercial use; commonly cited as CC BY 4.0.
- Arabic Speech Commands (github.com/abdulkaderghandoura/arabic-speech-commands-dataset): forty keywords, one
  second each. CC BY 4.0.

The recordings are not part of this repository. The sample voices are synthetic (espeak-ng)."""


def report(results: Path) -> str:
    """The page; an experiment that has no file yet is left out."""
    sections = [_HEAD]
    for experiment in EXPERIMENTS:
        for stem in experiment.stems():
            path = results / f"{stem}.json"
            if path.exists():
                sections.append(experiment.section(path))
                if experiment.figure is not None:
                    sections.append(f"![{experiment.name}](../benchmarks/results/{stem}.svg)")
    if (results / "kernels.md").exists():
        sections.append("## Kernels\n\nSee [kernels.md](../benchmarks/results/kernels.md).")
    return "\n\n".join([*sections, _SOURCES]) + "\n"


def main() -> None:
    """Command line of the report."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results files")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="page to write")
    options = parser.parse_args()
    sys.exit(run(lambda progress: write_text(options.out, report(options.results))))


if __name__ == "__main__":
    main()
