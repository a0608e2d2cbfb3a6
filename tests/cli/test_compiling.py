"""`compile`, `plan` and `sweep`: what they pass on, what they print, and how they stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import COMPILE, Captured, document, one_line
from tone_bundle import tone_plan

from bitvox.cli import run
from bitvox.errors import InputError, RequestError
from bitvox.exporters.manifest import Agreement
from bitvox.progress import Progress
from bitvox.request import CompileReport, CompileRequest, SweepReport


class FakeCompiler(types.ModuleType):
    """Stands for `bitvox.compile`: remembers requests and answers at once."""

    def __init__(self, failure: BaseException | None = None) -> None:
        super().__init__("bitvox.compile")
        self.failure = failure
        self.requests: list[CompileRequest] = []

    def compile_bundle(self, request: CompileRequest, progress: Progress) -> CompileReport:
        self.requests.append(request)
        progress("allocate", 0, 1)
        print("a library's chatter")
        if self.failure:
            raise self.failure
        progress("allocate", 1, 1)
        return self.report(request, 9000, 12.5)

    def make_plan(self, request: CompileRequest, progress: Progress) -> Any:
        self.requests.append(request)
        return tone_plan()

    def sweep(self, request: CompileRequest, budgets: list[int], progress: Progress) -> SweepReport:
        self.requests.append(request)
        reports = [
            self.report(request, size, rate) for size, rate in zip(budgets, (30.0, 40.0, 10.0), strict=True)
        ]
        if self.failure:
            return SweepReport(tuple(reports[1:]), {budgets[0]: str(self.failure)})
        return SweepReport(tuple(reports), {})

    @staticmethod
    def report(request: CompileRequest, size: int, rate: float) -> CompileReport:
        return CompileReport(
            out=request.out or Path(),
            bytes=size,
            budget=10_000,
            paper_bytes=size,
            average_bits=4.5,
            plan=tone_plan(),
            kernels={"filters": "QLinearConv"},
            parity=1e-6,
            agreement=Agreement(clips=4, seconds=9, word_error_rate=rate, identical=0.75),
            unit="words",
            seconds=3,
            peak_memory=10**9,
        )


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCompiler]:
    def install(failure: BaseException | None = None) -> FakeCompiler:
        fake = FakeCompiler(failure)
        monkeypatch.setitem(sys.modules, "bitvox.compile", fake)
        return fake

    return install


def test_compile_passes_every_option_on(compiler: Callable[..., FakeCompiler], capsys: Captured) -> None:
    fake = compiler()
    options = (
        "--method uniform --effort max --cost noise --rounding gptq --order descending --reduction max "
        "--calibration hessian --tier paper "
        "--activations dynamic --storage standard --kernels stock --allow-float --clips 7 --seed 3"
    )
    assert run([*COMPILE, *options.split()]) == 0
    assert fake.requests == [
        CompileRequest(
            model="m",
            audio=Path("a"),
            budget=3 * 2**19,
            out=Path("o"),
            method="uniform",
            effort="max",
            cost="noise",
            rounding="gptq",
            order="descending",
            reduction="max",
            calibration="hessian",
            tier="paper",
            activations="dynamic",
            storage="standard",
            kernels="stock",
            allow_float=True,
            clips=7,
            seed=3,
        )
    ]
    out, err = capsys.readouterr()
    assert "9000 bytes (9.00 kB), budget 10.0 kB" in out
    assert "chatter" not in out
    assert "chatter" in err
    assert "allocate: done" in err


def test_a_plan_leaves_no_choice_of_method(compiler: Callable[..., FakeCompiler], capsys: Captured) -> None:
    fake = compiler()
    options = ["--plan", "p.json", "--calibration", "hessian", "--clips", "7", "--seed", "3"]
    assert run([*COMPILE, *options]) == 0
    assert fake.requests[0].plan == Path("p.json")
    capsys.readouterr()
    # Even where they say what is usual: the plan may say otherwise.
    line = one_line(capsys, [*COMPILE, *options, "--method", "myqasr", "--tier", "paper"], 2)
    assert line == "bitvox: plan p.json: has decided --method, --tier; leave them out, or make another plan"
    with pytest.raises(InputError, match="has decided activations; leave it out"):
        CompileRequest("m", plan=Path("p.json"), activations="dynamic")


def test_defaults_are_those_of_the_request(compiler: Callable[..., FakeCompiler]) -> None:
    fake = compiler()
    assert run(COMPILE) == 0
    assert fake.requests == [CompileRequest(model="m", audio=Path("a"), budget=3 * 2**19, out=Path("o"))]


def test_compile_json(compiler: Callable[..., FakeCompiler], capsys: Captured) -> None:
    compiler()
    found = document(capsys, COMPILE)
    assert (found["bytes"], found["out"], found["kernels"]) == (9000, "o", {"filters": "QLinearConv"})
    assert found["agreement"]["word_error_rate"] == 12.5
    assert found["plan"]["sites"][0]["site"] == "filters"


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (RequestError("budget 1 MB: the smallest is 2 MB"), 1, "bitvox: budget 1 MB: the smallest is 2 MB"),
        (InputError("a: no audio\nin it"), 2, "bitvox: a: no audio in it"),
        (KeyboardInterrupt(), 130, "bitvox: interrupted; nothing was left half-written"),
    ],
)
def test_failures(
    compiler: Callable[..., FakeCompiler], capsys: Captured, failure: BaseException, code: int, line: str
) -> None:
    compiler(failure)
    assert one_line(capsys, [*COMPILE, "--json"], code) == line


def test_a_bug_keeps_its_traceback(compiler: Callable[..., FakeCompiler]) -> None:
    compiler(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        run(COMPILE)


def test_plan_goes_to_stdout_or_to_a_file(
    compiler: Callable[..., FakeCompiler], capsys: Captured, tmp_path: Path
) -> None:
    fake = compiler()
    command = ["plan", "m", "--audio", "a", "--budget", "1MB"]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["sites"][0]["site"] == "filters"
    assert run([*command, "-o", str(tmp_path / "plan.json")]) == 0
    assert "1 of 1 sites at 8 bits" in capsys.readouterr().out
    assert (tmp_path / "plan.json").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert document(capsys, command) == json.loads(text)
    assert fake.requests[0] == CompileRequest(model="m", audio=Path("a"), budget=10**6)


def test_sweep_marks_the_front(compiler: Callable[..., FakeCompiler], capsys: Captured) -> None:
    compiler()
    command = [
        "sweep",
        "m",
        "--audio",
        "a",
        "--out",
        "o",
        *["--budget", "1kB", "--budget", "2kB", "--budget", "3kB"],
    ]
    assert run(command) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.startswith("*") for row in rows] == [True, False, True]
    found = document(capsys, command)
    assert [entry["bytes"] for entry in found["bundles"]] == [1000, 2000, 3000]
    assert found["unreachable"] == []


def test_sweep_goes_on_after_a_budget_that_cannot_be_met(
    compiler: Callable[..., FakeCompiler], capsys: Captured
) -> None:
    compiler(RequestError("budget 1.00 kB: the smallest is 1.50 kB"))
    command = ["sweep", "m", "--audio", "a", "--out", "o"]
    command += ["--budget", "1kB", "--budget", "2kB", "--budget", "3kB"]
    assert run(command) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.splitlines()[-1] == "bitvox: budget 1.00 kB: the smallest is 1.50 kB"
    found = document(capsys, command, code=1)
    assert [entry["bytes"] for entry in found["bundles"]] == [2000, 3000]
    assert found["unreachable"] == [{"budget": 1000, "reason": "budget 1.00 kB: the smallest is 1.50 kB"}]


SLOW = """
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs tests in the background
slow = types.ModuleType("bitvox.compile")
def compile_bundle(request, progress):
    progress("allocate", 0, 1)
    time.sleep(60)
slow.compile_bundle = compile_bundle
sys.modules["bitvox.compile"] = slow
from bitvox.cli import main
main()
"""


def test_ctrl_c_is_one_line_and_130() -> None:
    command = [sys.executable, "-c", SLOW, *COMPILE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "allocate: 0/1\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert errors == "bitvox: interrupted; nothing was left half-written\n"


WRITING = """
import signal, sys, time, types
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where tests run under nohup
from pathlib import Path
slow = types.ModuleType("bitvox.compile")
def compile_bundle(request, progress):
    from bitvox.exporters.bundle import write_atomically
    def fill(folder):
        (folder / "half").write_text("x")
        progress("export", 0, 1)
        try:
            time.sleep(60)
        except BaseException:  # as C++ does where it calls Python
            raise RuntimeError("cannot deserialize")
    write_atomically(request.out, fill)
slow.compile_bundle = compile_bundle
sys.modules["bitvox.compile"] = slow
from bitvox.cli import main
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_terminated_compile_cleans_up(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-c", WRITING, "compile", "m", "--audio", "a", "--budget", "1MB"]
    command += ["--out", str(tmp_path / "new" / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "export: 0/1\n"
        assert len(list((tmp_path / "new").iterdir())) == 1
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert errors == "bitvox: stopped; nothing was left half-written\n"
    assert list(tmp_path.iterdir()) == []
