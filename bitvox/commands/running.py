"""`transcribe` and `verify`: what a bundle says, and whether it is whole."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from bitvox.commands.options import (
    BeamsOption,
    BundleArgument,
    JsonOption,
    LanguageOption,
    TaskOption,
    ThreadsOption,
)
from bitvox.commands.output import print_json, working
from bitvox.errors import InputError
from bitvox.printable import printable
from bitvox.progress import Progress, logger, no_progress, warnings_on_stderr

if TYPE_CHECKING:
    from bitvox.compiler.frontend.decoding import DecodingOptions
    from bitvox.exporters.runner import Runner


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("transcribe")(transcribe_command)
    app.command("verify")(verify_command)


def transcribe_command(
    bundle: BundleArgument,
    audio: Annotated[
        list[Path],
        typer.Argument(
            metavar="AUDIO...", help="Recordings, or folders of them: wav, flac, ogg, opus or mp3."
        ),
    ],
    language: LanguageOption = None,
    task: TaskOption = "transcribe",
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="A line for each stretch of speech, with its times. Whisper.")
    ] = False,
    beams: BeamsOption = 1,
    threads: ThreadsOption = 1,
    json: JsonOption = False,
) -> None:
    """Write down what is said in recordings: one line each, the path, a tab, the text.

    With --timestamps, one line for each stretch of speech: the path, its seconds, the text, between tabs.
    What cannot be read is named on stderr and the rest goes on; the exit code is then 2.

        bitvox transcribe ./my-model ./recordings
    """
    from bitvox.compiler.frontend.decoding import DecodingOptions, Task
    from bitvox.exporters.bundle import Bundle
    from bitvox.exporters.runner import open_runner

    options = DecodingOptions(language, cast("Task", task), timestamps, beams)

    files, faults = _recordings(audio)
    results: list[dict[str, Any]] = []
    stdout = sys.stdout
    with contextlib.ExitStack() as stack:
        # Lines on the same terminal are progress enough; a bar would be drawn between them.
        if stdout.isatty() and not json:
            stack.enter_context(warnings_on_stderr())
            progress: Progress = no_progress
        else:
            progress = stack.enter_context(working())
        for fault in faults:
            logger.warning("skipped %s", fault["error"])
        if not files:
            raise InputError(f"none of the {len(audio)} places holds a recording (each is named above)")
        opened = Bundle.open(bundle)
        opened.manifest.processor.check(options)
        runner = open_runner(opened, threads)
        runner.check_beams(options)
        progress("transcribe", 0, len(files))
        for number, file in enumerate(files, start=1):
            result = _transcribe(runner, file, options)
            results.append(result)
            if not json:
                for line in _lines(result):
                    print(line, file=stdout, flush=True)
            progress("transcribe", number, len(files))
    if json:
        print_json({"bundle": str(bundle), "transcripts": results + faults})
    if faults or any("error" in result for result in results):
        raise typer.Exit(2)


def _recordings(places: list[Path]) -> tuple[list[Path], list[dict[str, Any]]]:
    """Every recording at the places, and a result for each that has none; a lone place must."""
    from bitvox.compiler.frontend.audio import find_audio

    files: list[Path] = []
    faults: list[dict[str, Any]] = []
    for place in places:
        try:
            files += find_audio(place)
        except InputError as error:
            if len(places) == 1:
                raise
            faults.append({"path": str(place), "error": str(error)})
    return files, faults


def _transcribe(runner: Runner, file: Path, options: DecodingOptions) -> dict[str, Any]:
    """A result as --json prints it, or with an `error`."""
    from bitvox.compiler.frontend.audio import read_clip

    try:
        clip = read_clip(file, runner.processor.sampling_rate)
        found = runner.listen(clip.samples, options)
    except InputError as error:
        message = str(error) if str(file) in str(error) else f"{file}: {error}"
        logger.warning("skipped %s", message)
        return {"path": str(file), "error": message}
    result: dict[str, Any] = {"path": str(file), "seconds": clip.seconds, "text": found.text}
    if found.language is not None:
        result["language"] = found.language
    if options.timestamps:
        result["segments"] = [dataclasses.asdict(segment) for segment in found.segments]
    return result


def _lines(result: dict[str, Any]) -> list[str]:
    """A result as it is printed; none of what could not be read."""
    if "error" in result:
        return []
    path = printable(str(result["path"]))
    if "segments" not in result:
        return [f"{path}\t{_one_line(result['text'])}"]
    return [
        f"{path}\t{part['start']:.2f}-{part['end']:.2f}\t{_one_line(part['text'])}"
        for part in result["segments"]
    ]


def _one_line(text: str) -> str:
    """A byte-level vocabulary can write line breaks, and what moves a terminal's cursor."""
    return printable(" ".join(text.split()))


def verify_command(bundle: BundleArgument, json: JsonOption = False) -> None:
    """Check that a bundle is whole and runs here: hashes, sizes, packed tensors, operators, budget, a run.

    Exit code 0 when nothing is wrong with it, 1 with one line per finding.
    """
    with working():
        from bitvox.exporters.bundle import Bundle
        from bitvox.exporters.verify import verify

        findings = verify(bundle)
    if json:
        print_json({"bundle": str(bundle), "ok": not findings, "findings": findings})
    elif findings:
        print("\n".join(findings))
    else:
        opened = Bundle.open(bundle)
        manifest = opened.manifest
        print(
            f"{bundle}: whole, and runs here ({len(manifest.files) + 1} files, {opened.bytes} bytes, "
            f"{manifest.target}, made from {manifest.source} by bitvox {manifest.bitvox})"
        )
    if findings:
        raise typer.Exit(1)
