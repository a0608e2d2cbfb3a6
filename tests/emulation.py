"""Both runtimes on emulated 64-bit ARM: `python tests/emulation.py` downloads what that takes.

`build/arm/packages` gets the wheels of ONNX Runtime, ExecuTorch and NumPy, in the versions installed here,
and `build/arm/system` the C library and the Python of Debian that they run on. Nothing is installed or run
with privileges: packages are unpacked, and the emulator of single programs looks for files there first.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "arm"
SYSTEM, PACKAGES = FOLDER / "system", FOLDER / "packages"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"

# ONNX Runtime's C headers are the same for every machine.
HEADERS = Path(os.environ.get("ONNXRUNTIME_INCLUDE_DIR", ROOT / "build" / "onnxruntime-headers" / "include"))

_RELEASE, _PYTHON = "bookworm", "3.11"
_SYSTEM_PACKAGES = (
    "libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 "
    f"python{_PYTHON}-minimal libpython{_PYTHON}-minimal libpython{_PYTHON}-stdlib"
)
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_WHEELS = ("onnxruntime", "executorch", "numpy")

_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV8_2 = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Processor:
    """A processor of the emulator.

    Attributes:
        model: What the emulator calls it.
        path: The kernels' best path on it.
        features, part: What its /proc/cpuinfo says. The runtimes read them there, and run instructions that
            the emulated processor does not have where this machine's file is seen, or another processor's.
    """

    model: str
    path: str
    features: str
    part: str

    def system(self) -> Path:
        """The system's folder as this processor would show it."""
        folder = FOLDER / self.model
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=FOLDER) as made:
                unfinished = Path(made) / "system"
                self._write(unfinished)
                unfinished.rename(folder)
        return folder

    def _write(self, folder: Path) -> None:
        processors = folder / "sys/devices/system/cpu"
        processors.mkdir(parents=True)
        for name in ("possible", "present", "online"):
            (processors / name).write_text("0\n")
        (folder / "proc").mkdir()
        (folder / "proc/cpuinfo").write_text(
            f"processor\t: 0\nFeatures\t: {self.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
            f"CPU variant\t: 0x0\nCPU part\t: {self.part}\nCPU revision\t: 0\n\n"
        )
        for path in SYSTEM.iterdir():
            (folder / path.name).symlink_to(path)

    def run(self, *command: str | Path) -> str:
        """Output of an ARM program that must succeed."""
        environment = {**os.environ, "PYTHONHOME": str(SYSTEM / "usr"), "PYTHONPATH": str(PACKAGES)}
        return _run([EMULATOR, "-cpu", self.model, "-L", self.system(), *command], env=environment)


# `max` has SVE and SME, with which both runtimes compute wrong integers under this emulator: it runs without.
PROCESSORS = (
    Processor("cortex-a53", "neon", _BASE, "0xd03"),
    Processor("cortex-a76", "neon_dotprod", _ARMV8_2, "0xd0b"),
    Processor("max,sve=off", "neon_i8mm", f"{_ARMV8_2} i8mm bf16", "0xd4d"),
)
PYTHON = SYSTEM / f"usr/bin/python{_PYTHON}"


def absent() -> str:
    """What is missing here for emulated tests, in words; nothing where all is there."""
    for program, package in (
        (EMULATOR, "qemu-user"),
        (COMPILER, "g++-aarch64-linux-gnu"),
        ("cmake", "cmake"),
    ):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt install {package})"
    if not HEADERS.is_dir():
        return f"{HEADERS} is not there (runtime_kernels/adapters/onnxruntime/fetch_headers.sh)"
    return "" if FOLDER.is_dir() else f"{FOLDER} is not there (make arm-runtimes)"


def build_libraries() -> tuple[Path, Path]:
    """The operator libraries for ONNX Runtime and for ExecuTorch, built incrementally."""
    folder = ROOT / "build" / "adapters-aarch64"
    options = (
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={COMPILER}",
        f"-DONNXRUNTIME_INCLUDE_DIR={HEADERS}",
        f"-DBITVOX_EXECUTORCH_DIR={PACKAGES / 'executorch'}",
    )
    _run(["cmake", "-S", ROOT / "runtime_kernels", "-B", folder, *options])
    _run(["cmake", "--build", folder, "--parallel", "2"])
    adapters = folder / "adapters"
    return adapters / "onnxruntime/libbitvox_onnxruntime.so", adapters / "executorch/libbitvox_executorch.so"


def build_runner(source: Path) -> Path:
    """A C++ program over ExecuTorch's libraries."""
    package, program = PACKAGES / "executorch", ROOT / "build" / "adapters-aarch64" / source.stem
    headers = package / "include"
    libraries = ("executorch", "executorch_kernels_optimized", "executorch_backend_xnnpack")
    _run(
        [
            *(COMPILER, "-std=c++17", "-O1", "-Wall", "-DC10_USING_CUSTOM_GENERATED_MACROS"),
            *("-isystem", headers, "-isystem", headers / "executorch/runtime/core/portable_type/c10"),
            *(source, "-o", program, f"-L{package / 'lib'}", f"-Wl,-rpath,{package / 'lib'}"),
            *("-Wl,--no-as-needed", *(f"-l{name}" for name in libraries), "-ldl"),
        ]
    )
    return program


def fetch() -> None:
    """Download and unpack everything, whole or not at all; anew where other versions are installed here."""
    if all((PACKAGES / f"{name}-{version}.dist-info").is_dir() for name, version in _versions()):
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as made:
        folder, downloads = Path(made) / "arm", Path(made) / "downloads"
        downloads.mkdir()
        _fetch_system(folder / SYSTEM.name, downloads)
        _fetch_wheels(folder / PACKAGES.name, downloads)
        folder.rename(FOLDER)


def _versions() -> list[tuple[str, str]]:
    return [(name, importlib.metadata.version(name)) for name in _WHEELS]


def _fetch_system(folder: Path, downloads: Path) -> None:
    """Debian's packages for ARM, from the mirror that apt knows, checked by the keys that it trusts."""
    sources = _run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE)"])
    known = [line.split() for line in sources.splitlines()]
    mirrors = [address for origin, address, release in known if origin == "Debian" and "-" not in release]
    if not mirrors:
        sys.exit("emulation.py: apt knows no mirror of Debian")
    for name in ("lists/partial", "archives/partial"):
        (downloads / name).mkdir(parents=True)
    (downloads / "status").touch()
    (downloads / "sources.list").write_text(f"deb [signed-by={_KEYS}] {mirrors[0]} {_RELEASE} main\n")
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::Etc::SourceList": downloads / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": downloads / "lists",
        "Dir::State::status": downloads / "status",
        "Dir::Cache": downloads,
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *options, "update", "-qq"])
    _run(["apt-get", *options, "download", "-qq", *_SYSTEM_PACKAGES.split()], cwd=downloads)
    folder.mkdir(parents=True)
    for path in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "-x", path, folder])


def _fetch_wheels(folder: Path, downloads: Path) -> None:
    wanted = [f"{name}=={version}" for name, version in _versions()]
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
    options = ["--no-deps", "--only-binary=:all:", f"--python-version={_PYTHON}", f"--dest={downloads}"]
    _run([sys.executable, "-m", "pip", "download", "--quiet", *options, *platforms, *wanted])
    for path in downloads.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(folder)


def _run(command: list[str | Path], **options: object) -> str:
    """The output of a command that must succeed; otherwise what it printed is the error."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(words)} failed ({done.returncode}):\n{done.stdout[-4000:]}"
    return str(done.stdout)


if __name__ == "__main__":
    try:
        fetch()
    except AssertionError as error:
        sys.exit(f"emulation.py: {error}")
