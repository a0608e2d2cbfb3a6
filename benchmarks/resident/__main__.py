"""`python -m bitvox.benchmarks.resident`: write `packed_onnx.json` and `packed_onnx.md`."""

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
from bitvox.benchmarks.resident.measure import LENGTHS, by_operator, interleaved, memory_in_fresh_process
from bitvox.benchmarks.resident.variants import FLOAT, Variant, write_variants
from bitvox.runtime_kernels.adapters.onnxruntime.library import library_isa


def main() -> None:
    """Measure everything and write the two files."""
    parser = argparse.ArgumentParser(prog="python -m bitvox.benchmarks.resident", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the files")
    parser.add_argument("--rounds", type=int, default=15, help="of the models, taking turns")
    options = parser.parse_args()
    document: dict[str, Any] = {"commit": commit(), "machine": machine(), "isa": library_isa()}
    with tempfile.TemporaryDirectory() as scratch:
        parameters, variants = write_variants(Path(scratch), _say)
        document |= {"parameters": parameters, **_measure(variants, options.rounds, Path(scratch))}
    (options.out / "packed_onnx.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (options.out / "packed_onnx.md").write_text(report.text(document), encoding="utf-8")


def _measure(variants: list[Variant], rounds: int, scratch: Path) -> dict[str, Any]:
    _say("memory")
    empty = memory_in_fresh_process(None)
    rows = {variant.form.name: _memory(variant, empty) for variant in variants}
    for seconds in LENGTHS:
        _say(f"time of {seconds} s")
        count = rounds if seconds == LENGTHS[0] else max(rounds // 3, 3)
        times = interleaved([variant.folder for variant in variants], seconds, count)
        for index, variant in enumerate(variants):
            ratio = times[:, 0] / times[:, index]
            assert variants[0].form.name == FLOAT
            rows[variant.form.name][f"run {seconds} s"] = vars(Spread.of(times[:, index]))
            rows[variant.form.name][f"times faster than fp32, {seconds} s"] = vars(Spread.of(ratio))
            over_int8 = vars(Spread.of(times[:, 1] / times[:, index]))
            rows[variant.form.name][f"times faster than int8, {seconds} s"] = over_int8
    _say("operators")
    profiles = {
        variant.form.name: by_operator(variant.folder, LENGTHS[0], rounds, scratch) for variant in variants
    }
    return {"models": rows, "operators": profiles}


def _memory(variant: Variant, empty: dict[str, Any]) -> dict[str, Any]:
    found = memory_in_fresh_process(variant.folder)
    return {
        "what": variant.form.what,
        "bytes": variant.bytes,
        "weight_bytes": variant.weight_bytes,
        "parity": variant.parity,
        "load_seconds": found["seconds"],
        "loaded": found["resident"] - empty["resident"],
        "loading_peak": found["peak"] - empty["peak"],
        "after": {seconds: bytes_ - empty["resident"] for seconds, bytes_ in found["runs"].items()},
    }


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
