"""The bundle of tones lives beside the tests of bundles."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bundle"))
