"""Find a checkpoint by name and load it as a `SpeechModel`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from bitvox.compiler.frontend.families import FAMILIES, Family, supported
from bitvox.compiler.frontend.model import SpeechModel
from bitvox.compiler.frontend.prepare import prepare
from bitvox.compiler.frontend.processor import AnyProcessor
from bitvox.compiler.frontend.sites import find_sites
from bitvox.errors import InputError

_ASSETS = files("bitvox") / "assets"

REFERENCE_MODELS = tuple(
    sorted(folder.name for folder in _ASSETS.iterdir() if (folder / "config.json").is_file())
)
"""Names of the checkpoints that ship with bitvox."""

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def load_model(name: str | Path) -> SpeechModel:
    """Load and prepare a checkpoint.

    Args:
        name: A shipped model of `REFERENCE_MODELS`, a local folder in the hub's layout, or a hub id.

    Raises:
        InputError: There is no such checkpoint, its files are broken, or its architecture is not supported.
    """
    folder = resolve_checkpoint(str(name))
    config = _read_config(folder)
    family = _family_of(config, folder)
    module, processor = _read_weights(family, folder)
    fingerprint = _fingerprint(module, config, processor)  # of the tensors as stored, before any is folded
    prepare(module)
    wrapped = family.wrap(module)
    graphs = family.graphs(wrapped, processor)
    return SpeechModel(
        source=str(name),
        fingerprint=fingerprint,
        architecture=family.architecture,
        family=family.kind,
        module=wrapped,
        processor=processor,
        graphs=graphs,
        sites=find_sites(wrapped, family, graphs),
        licence=_licence(folder),
    )


def resolve_checkpoint(name: str) -> Path:
    """Folder of the files of the checkpoint called `name`; a hub id is downloaded where that can be done."""
    if name in REFERENCE_MODELS:
        return Path(str(_ASSETS / name))
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"model '{name}': a file; a checkpoint is a folder with config.json and its weights")
    if not _HUB_ID.fullmatch(name):
        raise InputError(
            f"model '{name}': no such folder; give a folder, a hub id (owner/name) or one that ships: "
            + ", ".join(REFERENCE_MODELS)
        )
    return _download(name)


def _download(hub_id: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    # What it has to say of a failed request is in the one line below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        names = HfApi().list_repo_files(hub_id)
        weights = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "*.bin"
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "merges.txt", weights, "README.md"]))
    except Exception as error:  # the hub client has a dozen unrelated types for "not there" and "no network"
        with contextlib.suppress(Exception):  # downloaded before, and no network now
            return Path(snapshot_download(hub_id, local_files_only=True))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model '{hub_id}': neither a folder here nor to be had from the hub ({reason[:160]})"
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"model '{folder}': no config.json; a checkpoint folder has the hub's layout"
        ) from error
    except (ValueError, OSError) as error:
        raise InputError(f"model '{folder}': config.json cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"model '{folder}': config.json is not an object")
    return config


def _family_of(config: dict[str, Any], folder: Path) -> Family:
    architectures = config.get("architectures")
    named = str(architectures[0]) if isinstance(architectures, list) and architectures else "(none named)"
    family = FAMILIES.get(named)
    if family is None:
        raise InputError(f"model '{folder}': architecture {named} is not supported; supported: {supported()}")
    return family


def _read_weights(family: Family, folder: Path) -> tuple[torch.nn.Module, AnyProcessor]:
    try:
        return family.load(folder)
    except InputError:
        raise
    except Exception as error:  # transformers, safetensors and torch each raise their own for a broken file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"model '{folder}': the checkpoint cannot be loaded ({reason[:200]})") from error


def _fingerprint(module: torch.nn.Module, config: dict[str, Any], processor: AnyProcessor) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    digest.update(processor.model_dump_json().encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()


def _licence(folder: Path) -> str:
    card = folder / "README.md"
    if not card.is_file():
        return "unknown"
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", card.read_text(encoding="utf-8", errors="replace"), re.M)
    return found.group(1) if found else "unknown"
