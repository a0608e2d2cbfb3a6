"""Checkpoint in, `SpeechModel` out: load, prepare, list the sites, trace.

Kept light: `processor` and `audio` also serve devices that have no torch.
"""

import logging

# transformers imports them if they are there, and they then report optional parts of theirs that are not.
for _library in ("torch.utils._pytree", "torchao"):
    logging.getLogger(_library).setLevel(logging.ERROR)
