"""The cost of efforts on a tiny configuration, through a fresh process as the real one."""

from __future__ import annotations

from pathlib import Path

from transformers import Wav2Vec2Config

from bitvox.benchmarks.experiments import planning_time, report_planning_time
from bitvox.benchmarks.experiments.results import read_document

CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


def test_an_effort_is_measured_once_with_what_it_told(tmp_path: Path) -> None:
    out, config = tmp_path / "planning_time.json", Wav2Vec2Config(**CONFIG)
    options = {"config": config, "seconds": 0.5, "budget": "100kB"}
    document = planning_time.planning_time(out, ("quick",), **options)
    (row,) = document.rows
    assert row.told.startswith("effort quick: about ")
    assert row.bytes <= 100_000
    assert row.cpu_seconds > 0
    assert "--effort quick" in row.command
    assert str(tmp_path.anchor) not in row.command
    assert read_document(out, planning_time.PlanningDocument) == document
    assert planning_time.planning_time(out, ("quick",), **options).rows == document.rows
    assert report_planning_time.section(out).count("| quick |") == 1
