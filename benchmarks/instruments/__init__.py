"""What the benchmarks measure with: interleaved times, exact peak memory, and the report that keeps every number."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler prints when it starts and stops
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # and remarks on what was allocated before it
