"""Measures bitvox's kernels against the runtimes a user would otherwise pick."""
