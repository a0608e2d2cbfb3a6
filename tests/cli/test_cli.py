"""The command line keeps its promises: one document on stdout, one line a failure, the right exit code."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from tone_bundle import play, tone_plan, write_tone_bundle

from bitvox.benchmarks import latency
from bitvox.cli import run
from bitvox.errors import InputError, RequestError
from bitvox.exporters.bundle import Bundle
from bitvox.exporters.manifest import Agreement
from bitvox.exporters.runner import open_runner
from bitvox.progress import Progress
from bitvox.request import CompileReport, CompileRequest, SweepReport

Captured = pytest.CaptureFixture[str]
COMPILE = ["compile", "m", "--audio", "a", "--out", "o", "--budget", "1.5MiB"]
COMMANDS = ("compile", "plan", "sweep", "transcribe", "verify", "eval", "bench", "inspect")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tone_bundle(tmp_path / "model")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    (folder / "ü").mkdir(parents=True)
    soundfile.write(folder / "a.wav", play("BAD"), 16000)
    soundfile.write(folder / "ü" / "b.flac", play("CAB ACE"), 16000)
    return folder


def one_line(captured: Captured, command: list[str], code: int) -> str:
    """Run a command that fails and return its last line on stderr; stdout must be empty."""
    assert run(command) == code
    out, err = captured.readouterr()
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith("bitvox: ")
    assert "Traceback" not in err
    return line


def document(captured: Captured, command: list[str], code: int = 0) -> Any:
    """Run a command with --json and return the one document on its stdout."""
    assert run([*command, "--json"]) == code
    return json.loads(captured.readouterr().out)


# -- help and wrong usage


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"bitvox {command}" in text or command in text
    assert "--json" in text


def test_help_and_version(capsys: Captured) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "bitvox 0.1.0\n"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["compile"], "compile: Missing argument 'MODEL'"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["compile", "m", "--bugdet", "3MB"], "No such option"),
        ([*COMPILE, "--method", "magic"], "'magic' is not one of"),
        (COMPILE[:-2], "budget: none given; write --budget 45MB"),
        ([*COMPILE[:-1], "45 potatoes"], "budget '45 potatoes': write a size"),
        ([*COMPILE, "--clips", "0"], "--clips"),
        (["plan", *COMPILE[1:4], "--budget", "1MB", "-o", "/nowhere/p.json"], "name a file in a folder"),
        (["transcribe", "gone", "gone.wav"], "gone.wav: no such file or folder"),
        (["verify", "gone"], "gone: no such folder"),
        (["eval", "gone", "--data", "x"], "gone: no such bundle"),
        (["bench", "gone"], "gone: no such bundle"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(command: list[str], complaint: str, capsys: Captured) -> None:
    assert complaint in one_line(capsys, command, 2)


# -- compile, plan, sweep: what they pass on and what they print


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
    assert "1 of 1 sites at 8 to 8 bits" in capsys.readouterr().out
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


# -- running


def test_transcribe_prints_a_line_per_recording(bundle: Path, recordings: Path, capsys: Captured) -> None:
    assert run(["transcribe", str(bundle), str(recordings)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{recordings}/a.wav\tBAD",
        f"{recordings}/ü/b.flac\tCAB ACE",
    ]
    found = document(capsys, ["transcribe", str(bundle), str(recordings / "a.wav")])
    assert found["transcripts"] == [
        {"path": str(recordings / "a.wav"), "seconds": pytest.approx(0.71), "text": "BAD"}
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--language", "en"], "language"),
        (["--task", "translate"], "task"),
        (["--timestamps"], "timestamps"),
        (["--beams", "5"], "beams"),
    ],
)
def test_transcribe_refuses_what_only_whisper_does(
    bundle: Path, recordings: Path, capsys: Captured, options: list[str], named: str
) -> None:
    line = one_line(capsys, ["transcribe", str(bundle), str(recordings), *options], 2)
    assert line.startswith(f"bitvox: {named}: only a model that writes token after token, as Whisper does")


def test_transcribe_goes_on_after_a_broken_recording(
    bundle: Path, recordings: Path, capsys: Captured
) -> None:
    (recordings / "aa.wav").write_bytes(b"junk")
    soundfile.write(recordings / "ab.wav", play("A")[:3], 16000)
    assert run(["transcribe", str(bundle), str(recordings)]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    warnings = [line for line in err.splitlines() if line.startswith("bitvox: warning: skipped ")]
    assert ["aa.wav" in warnings[0], "ab.wav" in warnings[1]] == [True, True]
    found = document(capsys, ["transcribe", str(bundle), str(recordings)], code=2)
    assert ["error" in entry for entry in found["transcripts"]] == [False, True, True, False]


def test_transcribe_goes_on_after_a_place_without_recordings(
    bundle: Path, recordings: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "empty").mkdir()
    places = [str(recordings / "a.wav"), str(tmp_path / "empty"), str(tmp_path / "gone"), str(recordings)]
    assert run(["transcribe", str(bundle), *places]) == 2
    out, err = capsys.readouterr()
    assert [line.split("\t")[1] for line in out.splitlines()] == ["BAD", "BAD", "CAB ACE"]
    warnings = [line for line in err.splitlines() if line.startswith("bitvox: warning: skipped ")]
    assert ["empty: no audio in it" in warnings[0], "gone: no such file" in warnings[1]] == [True, True]
    found = document(capsys, ["transcribe", str(bundle), *places], code=2)
    assert [entry["path"] for entry in found["transcripts"] if "error" in entry] == places[1:3]
    line = one_line(capsys, ["transcribe", str(bundle), *places[1:3]], 2)
    assert line == "bitvox: none of the 2 places holds a recording (each is named above)"


def test_a_name_that_would_break_the_lines_is_escaped(bundle: Path, tmp_path: Path, capsys: Captured) -> None:
    name = tmp_path / "a\nb\tc\x1b[2Jü.wav"
    soundfile.write(str(name), play("BAD"), 16000)
    bad = tmp_path / "bad\n.wav"
    bad.write_bytes(b"junk")
    assert run(["transcribe", str(bundle), str(name), str(bad)]) == 2
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/a\\nb\\tc\\x1b[2Jü.wav\tBAD\n"
    assert sum("bad\\n.wav" in line for line in err.splitlines()) == 1
    assert document(capsys, ["transcribe", str(bundle), str(name)])["transcripts"][0]["path"] == str(name)


def test_a_damaged_bundle_does_not_transcribe(bundle: Path, recordings: Path, capsys: Captured) -> None:
    data = bundle / "model.onnx.data"
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    assert "damaged" in one_line(capsys, ["transcribe", str(bundle), str(recordings)], 2)
    assert run(["verify", str(bundle)]) == 1
    assert capsys.readouterr().out.startswith("model.onnx.data: damaged")
    assert document(capsys, ["verify", str(bundle)], code=1)["ok"] is False


def test_verify_says_that_all_is_well(bundle: Path, capsys: Captured) -> None:
    assert run(["verify", str(bundle)]) == 0
    assert "whole, and runs here (3 files" in capsys.readouterr().out
    assert document(capsys, ["verify", str(bundle)]) == {"bundle": str(bundle), "ok": True, "findings": []}


LIGHT = """
import sys
from bitvox.cli import run
code = run(sys.argv[2:])
heavy = [name for name in sys.argv[1].split(",") if name in sys.modules]
sys.exit(f"imported {heavy}" if heavy else code)
"""


def imports_none_of(heavy: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LIGHT, heavy, *command], capture_output=True, text=True, check=False
    )


def test_transcribe_and_verify_need_no_torch(bundle: Path, recordings: Path) -> None:
    heavy = "torch,transformers,onnx,onnxscript,onnx_ir,jiwer"
    done = imports_none_of(heavy, "transcribe", str(bundle), str(recordings / "a.wav"))
    assert (done.returncode, done.stdout) == (0, f"{recordings}/a.wav\tBAD\n"), done.stderr
    assert imports_none_of(heavy, "verify", str(bundle)).returncode == 0


def test_help_imports_nothing_heavy() -> None:
    done = imports_none_of("torch,transformers,onnxruntime,numpy,soundfile,pydantic,jiwer", "--help")
    assert done.returncode == 0, done.stderr


def script(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from bitvox.cli import main; main()", *arguments]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_under_stdout_is_one_line(bundle: Path, recordings: Path, options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = script("transcribe", str(bundle), str(recordings), *options)
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bitvox: ")


def test_a_reader_that_has_enough_is_no_failure_to_speak_of(bundle: Path, recordings: Path) -> None:
    command = script("transcribe", str(bundle), *[str(recordings)] * 50)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith("BAD\n")
        process.stdout.close()
        errors = process.stderr.read()
    assert "Traceback" not in errors
    assert "bitvox: " not in errors


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
        time.sleep(60)
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


# -- judging


class FakeLoading(types.ModuleType):
    """Stands for `frontend.loading`: the full-precision model is the faithful bundle of tones."""

    def __init__(self, bundle: Path, fingerprint: str = "0" * 64) -> None:
        super().__init__("bitvox.compiler.frontend.loading")
        self.bundle, self.fingerprint = bundle, fingerprint
        self.asked: list[str] = []

    def load_model(self, name: str) -> Any:
        self.asked.append(name)
        if name == "gone":
            raise InputError("model 'gone': no such folder")
        runner = open_runner(Bundle.open(self.bundle))
        return types.SimpleNamespace(
            transcribe=runner.transcribe, fingerprint=self.fingerprint, source=name, folder=self.bundle
        )


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLoading:
    fake = FakeLoading(write_tone_bundle(tmp_path / "faithful"))
    monkeypatch.setitem(sys.modules, "bitvox.compiler.frontend.loading", fake)
    return fake


def test_eval_beside_full_precision(
    tmp_path: Path, recordings: Path, loading: FakeLoading, capsys: Captured
) -> None:
    lossy = write_tone_bundle(tmp_path / "lossy", confuse=("A", "B"))
    (recordings / "t.csv").write_text("path,speaker,text\na.wav,x,bad\nü/b.flac,y,CAB ACE\n")
    command = ["eval", str(lossy), "--data", str(recordings / "t.csv")]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert "word error rate changed by +100.00 points" in text
    assert "no regression on 0.0 % of clips" in text
    assert "bootstrapped over each speaker" in text
    found = document(capsys, command)
    assert found["full_precision"]["words"]["rate"]["percent"] == 0
    assert loading.asked == ["tones", "tones"]
    assert document(capsys, [*command, "--no-full-precision"])["comparison"] is None


def test_eval_of_a_folder_is_agreement(
    bundle: Path, recordings: Path, loading: FakeLoading, capsys: Captured
) -> None:
    assert run(["eval", str(bundle), "--data", str(recordings)]) == 0
    assert "100.0 % of clips the same" in capsys.readouterr().out


def test_another_checkpoint_is_no_comparison(
    bundle: Path, recordings: Path, loading: FakeLoading, capsys: Captured
) -> None:
    command = ["eval", str(bundle), "--data", str(recordings)]
    loading.fingerprint = "1" * 64
    assert "not the checkpoint that" in one_line(capsys, command, 2)
    assert "--no-full-precision" in one_line(capsys, [*command, "--checkpoint", "gone"], 2)


def test_bench_prints_the_ratio_whichever_way_it_falls(
    bundle: Path, loading: FakeLoading, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(model: Any, folder: Path) -> None:
        for name in ("model.onnx", "model.onnx.data"):
            shutil.copy(model.folder / name, folder)

    module = types.ModuleType("bitvox.exporters.onnx.exporter")
    module.export_full_precision = export  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(latency, "FRESH_PROCESSES", 1)
    assert run(["bench", str(bundle), "--seconds", "1"]) == 0
    text = capsys.readouterr().out
    assert "x the time" in text
    assert "peak memory" in text
    found = document(capsys, ["bench", str(bundle), "--seconds", "1", "--no-full-precision"])
    assert found["time_ratio"] is None
    assert found["measured"]["bytes"] == Bundle.open(bundle).bytes


# -- inspecting


def test_inspect_a_bundle_adds_up(bundle: Path, capsys: Captured) -> None:
    assert run(["inspect", str(bundle)]) == 0
    text = capsys.readouterr().out
    size = Bundle.open(bundle).bytes
    assert f"total {size} bytes of a budget of 100000" in text
    assert "the only one" in text
    found = document(capsys, ["inspect", str(bundle)])
    assert found["total"] == size == sum(found["files"].values())
    assert found["total"] == sum(row["bytes"] for row in found["sites"] + found["rest"])
    assert found["strip"] == "█"


def test_inspect_a_plan(tmp_path: Path, capsys: Captured) -> None:
    from bitvox.compiler.passes.plan_json import plan_to_json

    plan = tone_plan()
    sites = tuple(plan.sites[0].replace(site=f"s{bits}", bits=bits) for bits in (2, 3, None, 8))
    (tmp_path / "plan.json").write_text(plan_to_json(plan.replace(sites=sites)))
    found = document(capsys, ["inspect", str(tmp_path / "plan.json")])
    assert found["kind"] == "plan"
    assert found["strip"] == "▂▃F█"
    assert found["total"] == 2000 + 4 * 9000
    (tmp_path / "bad.json").write_text("{}")
    assert "not a plan" in one_line(capsys, ["inspect", str(tmp_path / "bad.json")], 2)
