"""Lay the package out under its import names, as links: type checkers do not see editable installs.

python tests/link_package.py build/types && mypy build/types/bitvox
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def link_package(out: Path) -> None:
    """Make `out/bitvox` from the table in pyproject.toml that maps folders to import names."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, str] = tomllib.load(file)["tool"]["scikit-build"]["wheel"]["packages"]
    for name, folder in sorted(table.items()):
        target = out / name
        target.mkdir(parents=True, exist_ok=True)
        for old in target.iterdir():
            if old.is_symlink():
                old.unlink()
        for source in (ROOT / folder).iterdir():
            if source.suffix == ".py" or (source.is_dir() and (source / "__init__.py").exists()):
                (target / source.name).symlink_to(source)


if __name__ == "__main__":
    link_package(Path(sys.argv[1]))
