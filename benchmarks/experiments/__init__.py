"""Experiments that show what the product does on real speech: one command each.

    python -m bitvox.benchmarks.experiments.voices
    python -m bitvox.benchmarks.experiments.real_speech
    python -m bitvox.benchmarks.experiments.runtimes
    python -m bitvox.benchmarks.experiments.full_size
    python -m bitvox.benchmarks.experiments.report

Results are in `benchmarks/results`. A finished cell is kept in the JSON file and not run again while what it
depends on stays the same.
"""

import bitvox.compiler.frontend  # noqa: F401 - before transformers, which it keeps quiet
