"""The manifest survives the disk exactly, and says so when it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tone_bundle import tone_manifest, tone_plan, write_tone_model

from bitvox.errors import InputError
from bitvox.exporters.manifest import MANIFEST_NAME, Agreement, Manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    write_tone_model(tmp_path)
    found = tone_manifest(tmp_path)
    return found.model_copy(
        update={"agreement": Agreement(clips=3, seconds=4.5, word_error_rate=1 / 3, identical=2 / 3)}
    )


def test_it_comes_back_as_it_was_written(manifest: Manifest, tmp_path: Path) -> None:
    manifest.write(tmp_path)
    again = Manifest.read(tmp_path)
    assert again == manifest
    assert again.quant_plan("here") == tone_plan()
    assert again.to_json() == manifest.to_json()


def test_it_is_compact_and_may_be_reindented(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert ", " not in text.split('"reason"')[0]
    assert Manifest.from_json(json.dumps(json.loads(text), indent=4), "x") == manifest


def test_any_changed_value_is_damage(manifest: Manifest) -> None:
    text = manifest.to_json()
    for old, new in (
        ("tones", "toNes"),
        ('"bits":8', '"bits":9'),
        ("Conv", "Cone"),
        ('"format":1', '"format":0'),
    ):
        assert old in text
        with pytest.raises(InputError, match=r"damaged"):
            Manifest.from_json(text.replace(old, new, 1), "x")


def test_every_flipped_byte_is_noticed(manifest: Manifest, tmp_path: Path) -> None:
    manifest.write(tmp_path)
    data = (tmp_path / MANIFEST_NAME).read_bytes()
    for position in range(0, len(data) - 1, 7):
        flipped = bytearray(data)
        flipped[position] ^= 1
        (tmp_path / MANIFEST_NAME).write_bytes(flipped)
        with pytest.raises(InputError, match=r"damaged|newer|not a manifest"):
            Manifest.read(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(manifest: Manifest) -> None:
    document = {**json.loads(manifest.to_json()), "format": 2, "a_field_of_the_future": []}
    with pytest.raises(InputError, match=r"newer bitvox \(format 2\), this one reads 1: upgrade"):
        Manifest.from_json(json.dumps(document), "x")


def test_an_older_format_asks_for_another_compile(manifest: Manifest) -> None:
    text = manifest.model_copy(update={"format": 0}).to_json()
    with pytest.raises(InputError, match=r"older bitvox \(format 0\), this one reads 1: compile it again"):
        Manifest.from_json(text, "x")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 100_000, '{"format": "1"}'])
def test_what_is_no_manifest_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^x: ") as caught:
        Manifest.from_json(text, "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", ""])
def test_files_stay_inside_the_bundle(manifest: Manifest, name: str) -> None:
    entry = next(iter(manifest.files.values()))
    evil = manifest.model_copy(update={"files": {name: entry}})
    with pytest.raises(InputError, match="no path inside the bundle"):
        Manifest.from_json(evil.to_json(), "x")
