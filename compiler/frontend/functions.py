"""A front end and a decoder of the user's own: Python functions on NumPy arrays, named in the manifest.

A bundle holds their names and not their code: where it runs, the module that defines them is installed, and
trusted by name, since to open somebody's bundle must not run whatever it names.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bitvox.compiler.frontend.decoding import DecodingOptions
from bitvox.compiler.frontend.processor_base import Processor
from bitvox.errors import InputError

FloatArray = npt.NDArray[np.float32]

TRUST = "BITVOX_TRUST"
"""Environment variable: modules, between commas, whose functions a bundle may call."""

# Modules whose functions this process handed over itself.
_given: set[str] = set()


class FunctionProcessor(Processor):
    """Features and text by functions of the user's own, each named as `module:function`.

    Attributes:
        features_by: Samples [T] -> model input [T', ...]; None for a model that reads samples.
        decode_by: Logits [frames, outputs] -> text, or the label of the clip.
        logits_per_frame: Number of logits of a frame.
    """

    features_by: str | None
    decode_by: str
    logits_per_frame: int

    def check(self, options: DecodingOptions) -> None:
        """Raise InputError, one line, where a function cannot be had, or the options ask for a search."""
        super().check(options)
        for name in (self.features_by, self.decode_by):
            if name is not None:
                function_named(name)

    @property
    def outputs(self) -> int:
        """Number of logits of a frame."""
        return self.logits_per_frame

    def input_shape(self, samples: int) -> tuple[int, ...]:
        """Shape of the model input of that many samples, found on zeros."""
        return (samples,) if self.features_by is None else _shape_of_zeros(self.features_by, samples)

    def features(self, samples: FloatArray) -> FloatArray:
        """Model input of samples [T] at `sampling_rate`; InputError where the function cannot be had."""
        if self.features_by is None:
            return np.ascontiguousarray(samples, dtype=np.float32)
        return np.ascontiguousarray(function_named(self.features_by)(samples), dtype=np.float32)

    def decode(self, logits: FloatArray) -> str:
        """What the function makes of logits [frames, outputs]."""
        return str(function_named(self.decode_by)(logits))


@cache
def _shape_of_zeros(name: str, samples: int) -> tuple[int, ...]:
    return tuple(np.shape(function_named(name)(np.zeros(samples, dtype=np.float32))))


@cache
def function_named(name: str) -> Callable[[FloatArray], Any]:
    """The function `module:function`; InputError where its module is not trusted or cannot be imported."""
    module, _, attribute = name.partition(":")
    if module not in _given and module not in os.environ.get(TRUST, "").split(","):
        raise InputError(
            f"function '{name}': the bundle calls it; set {TRUST}={module} if you would run that code"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"function '{name}': the bundle calls it and it cannot be imported here ({error}); "
            "install the package that defines it"
        ) from error
    if not callable(found):
        raise InputError(f"function '{name}': the bundle calls it and it is no function")
    return found


def name_of(function: Callable[..., Any], role: str) -> str:
    """`module:function` by which a bundle finds a function again; InputError where it could not."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module == "__main__":
        raise InputError(
            f"{role}: '{name}' is defined in the program that runs now; define it in a module of its own, "
            "which the bundle imports"
        )
    if not isinstance(module, str) or not name.isidentifier():
        raise InputError(
            f"{role}: not a function that a module defines by name; a bundle finds no other again"
        )
    _given.add(module)
    if function_named(f"{module}:{name}") is not function:
        raise InputError(f"{role}: '{module}:{name}' is another function; give the one that is there")
    return f"{module}:{name}"
