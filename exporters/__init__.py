"""Packed model in, files that a runtime loads out."""
