"""Checkpoints that this target does not take are named before any work is done."""

from __future__ import annotations

import pytest

pytest.importorskip("executorch", reason="the extra 'executorch' is not installed")

from bitvox.errors import InputError
from bitvox.exporters.executorch.skeleton import traced_skeleton
from tiny_families import tiny_family


def test_a_model_that_reads_features_is_refused() -> None:
    with pytest.raises(InputError, match="reads log-mel features, which the executorch target does not take"):
        traced_skeleton(tiny_family("bert"))
