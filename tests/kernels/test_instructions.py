"""No kernel runs more instructions than it did when they were recorded."""

from __future__ import annotations

import json

import pytest
from instructions import RECORD, measure
from native_build import ARM_COMPILER, missing

SLACK = 1.03  # what another minor version of the compiler may move


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx2", "neon", "neon_dotprod", "neon_i8mm"])
def test_instructions_have_not_grown(isa: str) -> None:
    tools = ("valgrind", "g++") if isa == "avx2" else (ARM_COMPILER, "qemu-aarch64", "cmake", "gcc")
    if absent := missing(*tools):
        pytest.skip(f"{absent} is not installed (apt install valgrind qemu-user g++-aarch64-linux-gnu)")
    recorded = json.loads(RECORD.read_text())[isa]
    now = measure(isa)
    grown = {case: (recorded[case], now[case]) for case in recorded if now[case] > SLACK * recorded[case]}
    assert grown == {}
