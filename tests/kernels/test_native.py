"""The C++ checks: on this CPU between guard pages, under sanitizers, and on emulated ARM."""

from __future__ import annotations

import pytest
from native_build import ARM_COMPILER, build_arm, build_native, build_sanitized, missing, run

from emulation import PROCESSORS, Processor


@pytest.mark.slow
def test_sanitizers_find_nothing() -> None:
    check = str(build_sanitized())
    assert "ok:" in run(check, "agree", "2")
    assert "ok:" in run(check, "fuzz", "2", "3000")


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
