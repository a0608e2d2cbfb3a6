"""`python -m bitvox.benchmarks.resident`: write `packed.json` and `packed.md`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bitvox.benchmarks.experiments.provenance import commit
from bitvox.benchmarks.latency import Spread, machine
from bitvox.benchmarks.resident import report
from bitvox.benchmarks.resident.measure import LENGTHS, interleaved, memory_in_fresh_process
from bitvox.benchmarks.resident.operators import by_operator
from bitvox.benchmarks.resident.variants import Variant, write_variants
from bitvox.exporters.targets import TARGETS
from bitvox.runtime_kernels.adapters.onnxruntime.library import library_isa

PROFILED_RUNS = 5


def main() -> None:
    """Write what is missing of the models, measure everything and write the two files."""
    parser = argparse.ArgumentParser(prog="python -m bitvox.benchmarks.resident", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the files")
    parser.add_argument("--models", type=Path, default=Path("build/full-size"), help="where models are kept")
    parser.add_argument("--rounds", type=int, default=15, help="of the models, taking turns")
    parser.add_argument("--only-write", action="store_true", help="the models, and measure nothing")
    options = parser.parse_args()
    options.models.mkdir(parents=True, exist_ok=True)
    parameters, variants = write_variants(options.models, _say)
    if options.only_write:
        return
    document: dict[str, Any] = {"commit": commit(), "machine": machine(), "isa": library_isa()}
    document |= {"parameters": parameters, **_measure(variants, options.rounds)}
    (options.out / "packed.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (options.out / "packed.md").write_text(report.text(document), encoding="utf-8")


def _measure(variants: list[Variant], rounds: int) -> dict[str, Any]:
    _say("memory")
    empty = {target: memory_in_fresh_process(target, None) for target in TARGETS}
    rows = {variant.form.name: _memory(variant, empty[variant.form.target]) for variant in variants}
    for seconds in LENGTHS:
        _say(f"time of {seconds} s")
        count = rounds if seconds == LENGTHS[0] else max(rounds // 3, 3)
        times = interleaved([(variant.form, variant.folder) for variant in variants], seconds, count)
        for index, variant in enumerate(variants):
            over = {
                peer.form.name: vars(Spread.of(times[:, column] / times[:, index]))
                for column, peer in enumerate(variants)
                if not peer.form.is_ours
            }
            found = {"run": vars(Spread.of(times[:, index])), "over": over}
            rows[variant.form.name]["times"][str(seconds)] = found
    _say("operators")
    return {"models": rows, "operators": {str(seconds): _profiles(variants, seconds) for seconds in LENGTHS}}


def _profiles(variants: list[Variant], seconds: int) -> dict[str, Any]:
    """Of bitvox's own, and at the first length of what they are compared with."""
    found = {}
    for variant in variants:
        if variant.form.is_ours or seconds == LENGTHS[0]:
            with tempfile.TemporaryDirectory() as scratch:
                found[variant.form.name] = by_operator(variant, seconds, PROFILED_RUNS, Path(scratch))
    return found


def _memory(variant: Variant, empty: dict[str, Any]) -> dict[str, Any]:
    found = memory_in_fresh_process(variant.form.target, variant.folder)
    return {
        "what": variant.form.what,
        "bytes": variant.bytes,
        "weight_bytes": variant.weight_bytes,
        "parity": variant.parity,
        "load_seconds": found["seconds"],
        "loaded": found["resident"] - empty["resident"],
        "loading_peak": found["peak"] - empty["peak"],
        "after": {seconds: bytes_ - empty["resident"] for seconds, bytes_ in found["runs"].items()},
        "times": {},
    }


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
