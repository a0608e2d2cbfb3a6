"""`inspect`: where the bytes of a checkpoint, a plan or a bundle go, site by site, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitvox.commands.options import JsonOption
from bitvox.commands.output import print_json, table, working
from bitvox.errors import InputError

if TYPE_CHECKING:
    from bitvox.compiler.passes.plan import QuantPlan

# One block a site, taller for wider: level n of eight is n bits.
_BLOCKS = " ▁▂▃▄▅▆▇█"
_FULL_PRECISION = "F"
_STRIP_WIDTH = 96


@dataclass(frozen=True)
class Row:
    """One line of the ledger: a site, or what is not a site; `bits` None is full precision."""

    name: str
    bits: int | None
    bytes: int
    how: str
    why: str


@dataclass(frozen=True)
class Ledger:
    """All bytes of one thing.

    Attributes:
        subject: What was inspected; `kind`: `checkpoint`, `plan` or `bundle`.
        sites: One row per site, in execution order.
        rest: Everything that no width changes.
        total: Sum of all rows.
        files: Bytes on disk by file, for a bundle.
        budget: Ceiling in bytes, where there is one.
        lengths: Seconds of audio that a bundle takes in one piece, where it has a method for each.
    """

    subject: str
    kind: str
    sites: tuple[Row, ...]
    rest: tuple[Row, ...]
    total: int
    files: dict[str, int]
    budget: int | None
    lengths: tuple[int, ...] = ()


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("inspect")(inspect_command)


def inspect_command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PLAN|BUNDLE",
            help="A checkpoint (hub id, folder, name), a plan's JSON file or a bundle.",
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Show where the bytes go: every site's width, stored bytes and reason, and a strip of bits per layer.

    bitvox inspect ./my-model
    """
    with working():
        ledger = read_ledger(subject)
    if json:
        print_json({**dataclasses.asdict(ledger), "strip": strip(ledger.sites)})
    else:
        print(_text(ledger))


def read_ledger(subject: str) -> Ledger:
    """The ledger of a bundle's folder, a plan's file, or else a checkpoint of that name."""
    from bitvox.exporters.manifest import MANIFEST_NAME

    path = Path(subject)
    if (path / MANIFEST_NAME).is_file():
        return _bundle_ledger(path)
    if path.is_file():
        return _plan_file_ledger(path)
    if path.is_dir() and not (path / "config.json").is_file():
        raise InputError(
            f"{subject}: neither a bundle (it has no {MANIFEST_NAME}) nor a checkpoint (no config.json)"
        )
    return _checkpoint_ledger(subject)


def strip(rows: Sequence[Row]) -> str:
    """One block per site in execution order, its height the width in bits; F is full precision."""
    return "".join(_FULL_PRECISION if row.bits is None else _BLOCKS[row.bits] for row in rows)


def _bundle_ledger(folder: Path) -> Ledger:
    from bitvox.exporters.bundle import Bundle
    from bitvox.exporters.manifest import MANIFEST_NAME

    bundle = Bundle.open(folder)
    manifest = bundle.manifest
    ledger = _plan_ledger(manifest.quant_plan(MANIFEST_NAME), str(folder))
    rows = tuple(
        dataclasses.replace(
            row, how=f"{row.how}, {manifest.audit[row.name]}" if row.name in manifest.audit else row.how
        )
        for row in ledger.sites
    )
    files = {name: entry.bytes for name, entry in manifest.files.items()}
    files[MANIFEST_NAME] = (folder / MANIFEST_NAME).stat().st_size
    rest = bundle.bytes - sum(row.bytes for row in rows)
    shared = Row("everything else", None, rest, "", "graph, biases, norms, processor, manifest")
    return dataclasses.replace(
        ledger,
        kind="bundle",
        sites=rows,
        rest=(shared,),
        total=bundle.bytes,
        files=files,
        lengths=manifest.lengths,
    )


def _plan_file_ledger(path: Path) -> Ledger:
    from bitvox.compiler.passes.plan_json import plan_from_json

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a plan: {error}") from error
    return _plan_ledger(plan_from_json(text, str(path)), str(path))


def _plan_ledger(plan: QuantPlan, subject: str) -> Ledger:
    from bitvox.exporters.targets import FULL_PRECISION

    full = FULL_PRECISION.get(plan.target, "full")
    sites = tuple(
        Row(
            name=site.site,
            bits=site.bits,
            bytes=site.stored_bytes,
            how=f"per {site.granularity}, {site.activations}" if site.bits else full,
            why=site.reason,
        )
        for site in plan.sites
    )
    shared = Row("everything else", None, plan.fixed_bytes, "", "graph, biases, norms, processor, manifest")
    return Ledger(subject, "plan", sites, (shared,), plan.total_bytes, {}, plan.budget)


def _checkpoint_ledger(name: str) -> Ledger:
    from bitvox.compiler.frontend.loading import load_model

    model = load_model(name)
    sites = tuple(
        Row(
            name=site.name,
            bits=None,
            bytes=4 * site.weights,
            how=f"{site.operator} {'x'.join(str(size) for size in site.shape)}",
            why=f"{site.role}, shares {site.share_group}" if site.share_group != site.name else site.role,
        )
        for site in model.sites
    )
    weights = {f"{site.name}.weight" for site in model.sites}
    rest = tuple(
        Row(tensor, None, 4 * value.numel(), "x".join(str(size) for size in value.shape), "not quantised")
        for tensor, value in model.module.named_parameters()
        if tensor not in weights
    )
    total = sum(row.bytes for row in (*sites, *rest))
    return Ledger(name, "checkpoint", sites, rest, total, {}, None)


def _text(ledger: Ledger) -> str:
    def cells(row: Row) -> tuple[object, ...]:
        bits = 32 if ledger.kind == "checkpoint" else row.bits or ("" if row in ledger.rest else "full")
        return row.name, bits, row.bytes, f"{100 * row.bytes / ledger.total:.1f} %", row.how, row.why

    lines = [f"{ledger.kind} {ledger.subject}", ""]
    rows = [cells(row) for row in (*ledger.sites, *ledger.rest)]
    lines.append(table(("site", "bits", "bytes", "share", "how", "why"), rows))
    budget = "" if ledger.budget is None else f" of a budget of {ledger.budget}"
    lines += ["", f"total {ledger.total} bytes{budget}"]
    lines += [f"  {name}: {size} bytes" for name, size in ledger.files.items()]
    if ledger.lengths:
        seconds = ", ".join(map(str, ledger.lengths))
        lines += ["", f"takes clips of up to {seconds} s, each with its own memory; longer ones in windows"]
    if ledger.kind != "checkpoint":
        blocks = strip(ledger.sites)
        lines += ["", f"bits per site, in order ({_BLOCKS[2]} 2 to {_BLOCKS[8]} 8, F full precision):"]
        lines += [blocks[start : start + _STRIP_WIDTH] for start in range(0, len(blocks), _STRIP_WIDTH)]
    return "\n".join(lines)
