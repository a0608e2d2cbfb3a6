"""Builds the kernels and their C++ checks outside of the Python package: plain, sanitized, or for ARM."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
ARM_COMPILER = "aarch64-linux-gnu-g++"


def missing(*programs: str) -> str:
    """The first program that is not installed, or nothing."""
    return next((program for program in programs if shutil.which(program) is None), "")


def build(kind: str, *options: str) -> Path:
    """Configure and build `build/kernels-<kind>`, incrementally; returns the check program."""
    folder = BUILD / f"kernels-{kind}"
    run(
        "cmake", "-S", str(ROOT / "runtime_kernels"), "-B", str(folder), "-DBITVOX_KERNEL_CHECKS=ON", *options
    )
    run("cmake", "--build", str(folder), "--parallel", "2")
    return folder / "nbit_check"


def build_arm() -> Path:
    """The checks for 64-bit ARM, linked statically so that an emulator needs no ARM system around them."""
    return build(
        "aarch64",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={ARM_COMPILER}",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )


def build_sanitized() -> Path:
    """The checks with address and undefined-behaviour sanitizers."""
    flags = "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
    return build("sanitized", "-DCMAKE_BUILD_TYPE=Sanitized", f"-DCMAKE_CXX_FLAGS={flags}")


def run(*command: str) -> str:
    """The output of a command that must succeed; otherwise what it printed is the error."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)} failed:\n{result.stdout[-4000:]}"
    return result.stdout
