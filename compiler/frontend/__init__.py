"""Checkpoint in, `SpeechModel` out: load, prepare, list the sites, trace.

Kept free of imports: `processor` and `audio` also serve devices that have no torch.
"""
