"""The parts of ``benchmarks/overhead.py``: models, procedures to compare, and one file a section."""
