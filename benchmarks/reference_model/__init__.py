"""The recipe of the shipped reference model: data, synthetic speech, training and evaluation."""

import bitvox.compiler.frontend  # noqa: F401 - before transformers, which it keeps quiet
