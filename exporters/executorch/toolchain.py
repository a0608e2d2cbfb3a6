"""ExecuTorch's compiler, imported once and in silence; InputError where it is not installed."""

from __future__ import annotations

from bitvox.exporters.executorch import session  # noqa: F401 - its import says what is missing
from bitvox.exporters.executorch.quiet import quiet

with quiet():
    import executorch.backends.xnnpack.partition.xnnpack_partitioner
    import executorch.exir  # noqa: F401
