"""How good a detector is, live being the positive class and a higher score more live.

``metrics``: rates and thresholds. ``report``: all of them for one system, with thresholds from development data.
``results``: what a study has measured. ``intervals``: how far its figures could have come out otherwise; its parts are
``persons`` (who is drawn) and ``weighted`` (the rates of a draw).
"""

from .intervals import Interval, interval, paired
from .report import Report, evaluate
from .results import Result

__all__ = ["Interval", "Report", "Result", "evaluate", "interval", "paired"]
