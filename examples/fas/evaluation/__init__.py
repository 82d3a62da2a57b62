"""How good a detector is, live being the positive class and a higher score more live.

``metrics``: rates and thresholds. ``report``: all of them for one system, with thresholds from development data.
"""

from .report import Report, evaluate

__all__ = ["Report", "evaluate"]
