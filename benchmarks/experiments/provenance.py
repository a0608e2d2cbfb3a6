"""Where numbers come from: commit, versions, machine; one description for every experiment."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version

from bitvox.benchmarks.experiments.results import REPOSITORY, Provenance
from bitvox.benchmarks.machine import machine

_PACKAGES = ("bitvox", "torch", "transformers", "onnx", "onnxruntime", "onnxscript", "numpy", "jiwer")


def provenance(
    name: str, arguments: Sequence[str], model: str, fingerprint: str, data: dict[str, str]
) -> Provenance:
    """What is known of a run that starts now of the experiment of that name."""
    return Provenance(
        command=shlex.join(["bitvox", "reproduce", name, *arguments]),
        commit=commit(),
        versions={name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        machine=machine(),
        model=model,
        fingerprint=fingerprint,
        data=data,
    )


def commit() -> str:
    """The repository's commit; `unknown` outside a checkout."""
    found = _git("rev-parse", "--short=12", "HEAD")
    if not found:
        return "unknown"
    # Results and the page made of them are what a run changes; they never change a number.
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs"
    )
    return f"{found}+changes" if changed else found


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
