"""The commands, one file per group; each turns options into a call of the Python API and prints the result.

Nothing heavy is imported before a command runs, so that help is quick and `transcribe` needs no torch.
"""
