"""The two ways a request can fail, each one line for the user and one exit code.

This module imports nothing, so that every room may raise these.
"""


class BitvoxError(Exception):
    """Base of every error whose message is meant for the user: one line, no traceback."""

    exit_code = 2


class InputError(BitvoxError):
    """Wrong usage or bad input from outside: a file, an option, a checkpoint (exit code 2)."""

    exit_code = 2


class RequestError(BitvoxError):
    """A well-formed request that cannot be met; the message names the nearest one that can (exit code 1)."""

    exit_code = 1
