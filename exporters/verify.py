"""Whether a bundle is whole, and whether this machine can run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitvox.errors import BitvoxError, InputError
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.manifest import MANIFEST_NAME, Manifest
from bitvox.exporters.packed_file import header_faults, resident_faults
from bitvox.exporters.runner import open_runner
from bitvox.exporters.targets import runtime

# Weights beside a graph, each packed one behind a header that says what it is.
_PACKED_SUFFIX = ".onnx.data"


def verify(folder: Path) -> list[str]:
    """What is wrong with the bundle in a folder, one line each; an empty list is a bundle that runs here.

    Checked in order: sizes and SHA-256 of every file, files that do not belong, the plan, operators that
    the runtime here lacks; and, where all of that holds, that every packed tensor has the form that the plan
    says, and that the model loads and runs one second of silence to finite logits. Raises InputError when the
    folder is no bundle or its manifest cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a bundle, the folder with {MANIFEST_NAME}")
    bundle = Bundle(folder, Manifest.read(folder))
    findings = bundle.faults() + _plan_faults(bundle) + _missing_operators(bundle)
    return findings or _header_faults(bundle) or _run_faults(bundle)


def _plan_faults(bundle: Bundle) -> list[str]:
    try:
        plan = bundle.manifest.quant_plan(MANIFEST_NAME)
    except InputError as error:
        return [str(error)]
    over = plan.budget is not None and bundle.bytes > plan.budget
    return [f"{bundle.bytes} bytes on disk: over its budget of {plan.budget}"] if over else []


def _header_faults(bundle: Bundle) -> list[str]:
    plan = bundle.manifest.quant_plan(MANIFEST_NAME)
    if plan.kernels == "packed":
        return resident_faults([bundle.folder / name for name in bundle.manifest.files], plan)
    if plan.storage != "packed":
        return []  # types of the runtime's own
    files = [bundle.folder / name for name in bundle.manifest.files if name.endswith(_PACKED_SUFFIX)]
    return [fault for path in files for fault in header_faults(path, plan)]


def _missing_operators(bundle: Bundle) -> list[str]:
    target = runtime(bundle.manifest.target, bundle.folder)
    missing = target.missing_operators(bundle.manifest.operators)
    findings = [f"operator {name}: not in the runtime here" for name in missing]
    if missing and bundle.manifest.plan.get("kernels") == "packed":
        try:
            target.require_kernels("packed")
            findings.append(
                "the operator library here is of another version: install bitvox again to build it anew"
            )
        except InputError as error:
            findings.append(str(error))
    return findings


def _run_faults(bundle: Bundle) -> list[str]:
    processor = bundle.manifest.processor
    silence = np.zeros(max(processor.sampling_rate, processor.minimum_samples), dtype=np.float32)
    try:
        logits = open_runner(bundle).logits(silence)
    except BitvoxError as error:
        return [str(error)]
    if logits.ndim != 2 or logits.shape[1] != processor.outputs:
        return [f"logits of shape {list(logits.shape)}: the processor knows {processor.outputs} outputs"]
    return [] if np.isfinite(logits).all() else ["logits of one second of silence are not finite"]
