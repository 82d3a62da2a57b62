"""The parts of ``benchmarks/adapters.py``: the released form, a plain ViT, and one file a section."""

import instruments  # noqa: F401  # before torch is imported: the profiler shall be quiet
