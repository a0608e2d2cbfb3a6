"""What `bitvox` promises to the programs of others: changing this list is a decision, not an accident."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bitvox

PUBLIC = {
    "__version__",
    "load",
    "SpeechModel",
    "Site",
    "Clip",
    "read_clip",
    "make_plan",
    "QuantPlan",
    "SitePlan",
    "plan_to_json",
    "plan_from_json",
    "compile_bundle",
    "sweep",
    "SweepReport",
    "CompileRequest",
    "CompileReport",
    "Bundle",
    "open_runner",
    "Runner",
    "DecodingOptions",
    "Segment",
    "Transcription",
    "verify",
    "session_options",
    "read_dataset",
    "Dataset",
    "evaluate",
    "EvalReport",
    "bench",
    "BenchReport",
    "BitvoxError",
    "InputError",
    "RequestError",
}


def test_the_list() -> None:
    assert set(bitvox.__all__) == PUBLIC
    assert len(bitvox.__all__) == len(PUBLIC)
    assert set(dir(bitvox)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(bitvox, name)
    assert isinstance(value, str) or value.__doc__


def test_type_checkers_see_what_runs() -> None:
    tree = ast.parse(Path(bitvox.__file__).read_text())
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bitvox.")
        for alias in node.names
    }
    assert seen == bitvox._HOMES
    assert set(bitvox._HOMES) | {"__version__"} == PUBLIC


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        bitvox.frobnicate  # noqa: B018


def test_importing_bitvox_and_running_a_bundle_is_light() -> None:
    code = (
        "import sys, bitvox; assert 'numpy' not in sys.modules;"
        "bitvox.Bundle, bitvox.open_runner, bitvox.read_clip;"
        "assert not {'torch', 'transformers', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
