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


def build_sanitized(paths: str = "avx2") -> Path:
    """The checks with address and undefined-behaviour sanitizers: all common code, the scalar path and these.

    The paths share their templates; instrumenting the several hundred tiles of AVX512 takes minutes, which
    `make test-sanitizers` spends by asking for "" (all).
    """
    flags = "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
    options = (f"-DBITVOX_KERNEL_PATHS={paths}", "-DCMAKE_BUILD_TYPE=Sanitized", f"-DCMAKE_CXX_FLAGS={flags}")
    return build(f"sanitized-{paths or 'all'}", *options)


def build_thread_sanitized() -> Path:
    """The checks with the thread sanitizer, for the pool."""
    flags = "-O1 -fsanitize=thread"
    options = ("-DBITVOX_KERNEL_PATHS=avx2", "-DCMAKE_BUILD_TYPE=Sanitized", f"-DCMAKE_CXX_FLAGS={flags}")
    return build("sanitized-threads", *options)


def installed_library() -> Path | None:
    """The library that the Python module was linked from, where this checkout is an editable install."""
    return next(iter(sorted(BUILD.glob("cp*/runtime_kernels/libbitvox_nbit.a"))), None)


def build_native() -> Path:
    """The checks with every path of this processor."""
    library = installed_library()
    if library is None:
        return build("native")
    program = BUILD / "kernels-native" / "nbit_check"
    program.parent.mkdir(parents=True, exist_ok=True)
    source, include = ROOT / "tests/kernels/native/check.cpp", ROOT / "runtime_kernels/include"
    run(
        "g++",
        "-std=c++17",
        "-O1",
        "-Wall",
        f"-I{include}",
        str(source),
        str(library),
        "-o",
        str(program),
        "-pthread",
    )
    return program


def run(*command: str) -> str:
    """The output of a command that must succeed; otherwise what it printed is the error."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)} failed:\n{result.stdout[-4000:]}"
    return result.stdout
