"""Modulation: coefficients that slow a modality that runs ahead, and speed up one that falls behind.

Where several modalities share a loss, the one that lowers it first takes the gradient from the others. The remedy has
two steps: a score for each modality, comparable between them, and a coefficient that grows with the discrepancy.

================  ====================================================================================================
``pmr_weights``   scores → the weights of two loss terms: a prototypical cross-entropy that speeds the slow modalities
                  up, and an entropy that holds the fast ones back
================  ====================================================================================================

A coefficient on a loss term acts under every optimizer: what it changes is the direction of the summed gradient. A
constant factor on the whole gradient of a branch does nothing under Adam, which divides it out again.
"""

from balancekit.modulation._pmr import pmr_weights

__all__ = ["pmr_weights"]
