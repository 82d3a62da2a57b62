"""The parts of ``benchmarks/overhead.py``: models, procedures to compare, meters, and one file a section."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler prints when it starts and stops
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # and remarks on what was allocated before it
