"""The C++ checks: on this CPU between guard pages, under sanitizers, and on emulated ARM."""

from __future__ import annotations

import os

import pytest
from native_build import (
    ARM_COMPILER,
    build_arm,
    build_native,
    build_sanitized,
    build_thread_sanitized,
    missing,
    run,
)

from emulation import PROCESSORS, Processor


@pytest.mark.slow
def test_sanitizers_find_nothing() -> None:
    check = str(build_sanitized(os.environ.get("BITVOX_SANITIZED_PATHS", "avx2")))
    assert "ok:" in run(check, "agree", "2")
    assert "ok:" in run(check, "fuzz", "2", "3000")


@pytest.mark.slow
def test_the_thread_sanitizer_finds_nothing() -> None:
    if "BITVOX_SANITIZED_PATHS" not in os.environ:
        pytest.skip("a minute to build: make test-sanitizers")
    assert "ok:" in run(str(build_thread_sanitized()), "agree", "5")


@pytest.mark.slow
def test_no_path_reads_or_writes_past_a_buffer() -> None:
    check = str(build_native())
    for seed in range(4):
        assert "ok:" in run(check, "agree", str(seed))
    assert "ok:" in run(check, "fuzz", "1", "20000")


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: processor.model)
def test_arm_paths_give_the_same_bytes(processor: Processor) -> None:
    if absent := missing(ARM_COMPILER, "qemu-aarch64", "cmake"):
        pytest.skip(f"{absent} is not installed (apt install qemu-user g++-aarch64-linux-gnu cmake)")
    output = run("qemu-aarch64", "-cpu", processor.model, str(build_arm()), "agree", "3")
    assert output.split()[1] == processor.path, "the best path of this CPU was not the one expected"
