"""The parts of ``benchmarks/modality_gap.py``: what is measured, the trainings, and the picture."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "examples"))  # generated faces and MMDG are the example's
