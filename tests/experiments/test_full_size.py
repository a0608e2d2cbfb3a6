"""The full-size experiment on a tiny configuration, through a fresh process as the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Wav2Vec2Config

from bitvox.benchmarks.experiments import full_size, report_full_size
from bitvox.benchmarks.experiments.checkpoint import write_random_checkpoint
from bitvox.benchmarks.experiments.results import read_document

CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 12),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


STRUCTURES = {
    name: full_size.Structure(
        lambda folder: write_random_checkpoint(folder, Wav2Vec2Config(**CONFIG)), budget
    )
    for name, budget in (("first", "100kB"), ("second", "60kB"))
}


def test_compiles_runs_and_is_kept(
    tmp_path: Path, quick_bench: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "full_size.json"
    first = full_size.full_size(out, {"first": STRUCTURES["first"]}, 0.5)
    [row] = first.rows
    assert row.bytes <= row.budget == 100_000
    assert row.compile_peak_memory is None or row.compile_peak_memory > 10**8
    assert row.compile_cpu_seconds > 0
    assert row.ratio.median > 0 and row.ratio.count == 3
    assert str(tmp_path.anchor) not in row.compile_command
    assert read_document(out, full_size.FullSizeDocument) == first

    document = full_size.full_size(out, STRUCTURES, 0.5)
    assert [row.structure for row in document.rows] == list(STRUCTURES)
    assert document.rows[0] == row and document.rows[1].bytes <= document.rows[1].budget == 60_000

    monkeypatch.delattr(full_size, "bench")
    assert full_size.full_size(out, STRUCTURES, 0.5).rows == document.rows

    page = report_full_size.section(out)
    assert "2 of 2 bundles are at or under their budget; 2 were compiled within 12 GB and 2" in page
