"""Experiments that show what the product does on real speech: `bitvox reproduce` lists them and runs one.

Results are in `benchmarks/results`. A finished cell is kept in the JSON file and not run again while what it
depends on stays the same, its code included. `registry` names every experiment; `judge` scores methods alike
in all that compare them; `report` writes `docs/results.md` from the results files.
"""

import bitvox.compiler.frontend  # noqa: F401 - before transformers, which it keeps quiet
