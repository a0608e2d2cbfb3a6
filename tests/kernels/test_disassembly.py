"""Machine code of the tiles: no stack traffic in loops, nothing of an instruction set outside its unit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from native_build import ARM_COMPILER, build_arm, installed_library, missing, run

FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str


def functions(disassembly: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Every function of a disassembly."""
    name, body = "", list[Instruction]()
    for line in disassembly.splitlines():
        if heading := FUNCTION.match(line):
            if body:
                yield name, body
            name, body = heading.group(1).replace("bitvox::", "").replace("(anonymous namespace)::", ""), []
        elif found := INSTRUCTION.match(line):
            body.append(Instruction(int(found.group(1), 16), found.group(2), found.group(3)))
    if body:
        yield name, body


def inside_loops(body: list[Instruction]) -> list[Instruction]:
    """Every instruction between a backward jump and its target."""
    inside: set[int] = set()
    for at, instruction in enumerate(body):
        target = re.search(r"(?:^|\s)([0-9a-f]+) <", instruction.operands)
        if target is None or not re.match(r"(j|b$|b\.|cb|tb)", instruction.name):
            continue
        start = int(target.group(1), 16)
        if body[0].address <= start < instruction.address:
            inside.update(one.address for one in body[: at + 1] if one.address >= start)
    return [one for one in body if one.address in inside]


def spills(body: list[Instruction], registers: str, stack: str) -> float:
    """Share of the instructions in loops that move a vector register to or from the stack."""
    loops = inside_loops(body)
    assert loops, "a tile without a loop: the disassembly was not understood"
    moved = [one for one in loops if re.search(registers, one.operands) and re.search(stack, one.operands)]
    return len(moved) / len(loops)


TOLERATED = 0.02  # a compiler may park a value or two outside of the innermost work


def tiles(disassembly: str) -> dict[str, list[Instruction]]:
    return {
        name: body
        for name, body in functions(disassembly)
        if re.match(r"void (grouped_)?((matrix_)?tile|multiply_(packed|panel))<", name)
    }


def x86_library() -> Path:
    library = installed_library()
    if library is None or missing("objdump"):
        pytest.skip("needs an editable install on x86 and objdump (apt install binutils)")
    return library


def test_x86_tiles_keep_their_sums_in_registers() -> None:
    found = tiles(run("objdump", "-dC", "--no-show-raw-insn", str(x86_library())))
    assert len(found) > 100
    spilled = {
        name: share
        for name, body in found.items()
        if (share := spills(body, "[xyz]mm", r"%r[sb]p")) > TOLERATED
    }
    assert spilled == {}


def test_arm_tiles_keep_their_sums_in_registers() -> None:
    if absent := missing(ARM_COMPILER, "aarch64-linux-gnu-objdump", "cmake"):
        pytest.skip(f"{absent} is not installed (apt install g++-aarch64-linux-gnu cmake)")
    library = build_arm().with_name("libbitvox_nbit.a")
    found = tiles(run("aarch64-linux-gnu-objdump", "-dC", "--no-show-raw-insn", str(library)))
    assert len(found) > 100
    spilled = {
        name: share for name, body in found.items() if (share := spills(body, r"\bq\d+", r"\[sp")) > TOLERATED
    }
    assert spilled == {}


def test_no_function_of_a_unit_can_replace_one_of_another() -> None:
    """A weak symbol compiled for a higher instruction set could be linked into code for a lower one."""
    symbols = run("nm", "-C", "--defined-only", str(x86_library()))
    members = re.split(r"\n(?=\S+\.o:)", symbols)
    units = [member for member in members if member.startswith("s8_nbit_c16k4_")]
    assert len(units) >= 5
    for unit in units:
        weak = [line for line in unit.splitlines() if re.search(r" [WwVuU] ", line)]
        assert weak == [], unit.splitlines()[0]
