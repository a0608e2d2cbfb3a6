"""bitvox fits a speech-recognition model to a voice and to a byte budget.

Every name here is imported when it is first used, so that `import bitvox` costs nothing and a program that
only runs bundles never imports torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("bitvox")

if TYPE_CHECKING:
    from bitvox.benchmarks.dataset import Dataset, read_dataset
    from bitvox.benchmarks.evaluate import EvalReport, evaluate
    from bitvox.benchmarks.latency import BenchReport, bench
    from bitvox.compile import compile_bundle, make_plan, sweep
    from bitvox.compiler.frontend.audio import Clip, read_clip
    from bitvox.compiler.frontend.decoding import DecodingOptions, Segment, Transcription
    from bitvox.compiler.frontend.loading import load_model as load
    from bitvox.compiler.frontend.model import Site, SpeechModel
    from bitvox.compiler.passes.plan import QuantPlan, SitePlan
    from bitvox.compiler.passes.plan_json import plan_from_json, plan_to_json
    from bitvox.errors import BitvoxError, InputError, RequestError
    from bitvox.exporters.bundle import Bundle
    from bitvox.exporters.runner import Runner, open_runner
    from bitvox.exporters.verify import verify
    from bitvox.request import CompileReport, CompileRequest, SweepReport
    from bitvox.runtime_kernels.adapters.onnxruntime.library import session_options

# Name -> (module, name there).
_HOMES = {
    "load": ("bitvox.compiler.frontend.loading", "load_model"),
    "SpeechModel": ("bitvox.compiler.frontend.model", "SpeechModel"),
    "Site": ("bitvox.compiler.frontend.model", "Site"),
    "Clip": ("bitvox.compiler.frontend.audio", "Clip"),
    "read_clip": ("bitvox.compiler.frontend.audio", "read_clip"),
    "QuantPlan": ("bitvox.compiler.passes.plan", "QuantPlan"),
    "SitePlan": ("bitvox.compiler.passes.plan", "SitePlan"),
    "plan_to_json": ("bitvox.compiler.passes.plan_json", "plan_to_json"),
    "plan_from_json": ("bitvox.compiler.passes.plan_json", "plan_from_json"),
    "CompileRequest": ("bitvox.request", "CompileRequest"),
    "CompileReport": ("bitvox.request", "CompileReport"),
    "SweepReport": ("bitvox.request", "SweepReport"),
    "compile_bundle": ("bitvox.compile", "compile_bundle"),
    "make_plan": ("bitvox.compile", "make_plan"),
    "sweep": ("bitvox.compile", "sweep"),
    "Bundle": ("bitvox.exporters.bundle", "Bundle"),
    "Runner": ("bitvox.exporters.runner", "Runner"),
    "open_runner": ("bitvox.exporters.runner", "open_runner"),
    "DecodingOptions": ("bitvox.compiler.frontend.decoding", "DecodingOptions"),
    "Transcription": ("bitvox.compiler.frontend.decoding", "Transcription"),
    "Segment": ("bitvox.compiler.frontend.decoding", "Segment"),
    "verify": ("bitvox.exporters.verify", "verify"),
    "session_options": ("bitvox.runtime_kernels.adapters.onnxruntime.library", "session_options"),
    "Dataset": ("bitvox.benchmarks.dataset", "Dataset"),
    "read_dataset": ("bitvox.benchmarks.dataset", "read_dataset"),
    "EvalReport": ("bitvox.benchmarks.evaluate", "EvalReport"),
    "evaluate": ("bitvox.benchmarks.evaluate", "evaluate"),
    "BenchReport": ("bitvox.benchmarks.latency", "BenchReport"),
    "bench": ("bitvox.benchmarks.latency", "bench"),
    "BitvoxError": ("bitvox.errors", "BitvoxError"),
    "InputError": ("bitvox.errors", "InputError"),
    "RequestError": ("bitvox.errors", "RequestError"),
}

__all__ = [  # noqa: RUF022 - grouped by what they are for
    "__version__",
    # a checkpoint and a voice
    "load",
    "SpeechModel",
    "Site",
    "Clip",
    "read_clip",
    # the decision
    "make_plan",
    "QuantPlan",
    "SitePlan",
    "plan_to_json",
    "plan_from_json",
    # the main job
    "compile_bundle",
    "sweep",
    "CompileRequest",
    "CompileReport",
    "SweepReport",
    # what ships
    "Bundle",
    "open_runner",
    "Runner",
    "DecodingOptions",
    "Transcription",
    "Segment",
    "verify",
    "session_options",
    # judging it
    "read_dataset",
    "Dataset",
    "evaluate",
    "EvalReport",
    "bench",
    "BenchReport",
    # what can go wrong
    "BitvoxError",
    "InputError",
    "RequestError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bitvox' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
