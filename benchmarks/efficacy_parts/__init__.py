"""The sections of ``benchmarks/efficacy.py``: data, models, the training of each method, and what the tables say."""
