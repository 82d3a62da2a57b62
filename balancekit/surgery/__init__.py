"""Gradient surgery: what to do where the losses of several modalities pull on the same parameters.

PLACEHOLDER
"""

from balancekit.surgery._engine import Surgery
from balancekit.surgery._rebalancer import Rebalancer
from balancekit.surgery._regrad import ReGrad, regrad_weights
from balancekit.surgery._rule import Rule, Step, Sum

__all__ = ["ReGrad", "Rebalancer", "Rule", "Step", "Sum", "Surgery", "regrad_weights"]
