"""The parts of ``benchmarks/uncertainty.py``: one file a section, and what the sections measure on."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "examples"))  # generated faces and their network are the example's
