"""Modulation: coefficients that slow a modality that runs ahead, and speed up one that falls behind.

Where several modalities share a loss, the one that lowers it first takes the gradient from the others. The remedy has
four ingredients, and nearly every published method is one choice of each:

============  ==========================================================================================================
score         how well each modality does on each sample, from what it says alone (``slice_logits``,
              ``zero_out_logits``, ``shapley_logits``, a head of its own): ``true_class_score`` and its kin
ratio         how far it is ahead of the others: ``discrepancy_ratio``
coefficient   what is done about it: ``ogm_coefficient``, ``two_sided_coefficient`` and their kin
actuator      what it is done to: ``modulate`` the features' gradients (of a batch or of each sample),
              ``scale_gradients`` of parameters, ``scale_updates`` of the optimizer, ``drop_features``, ``freeze``
============  ==========================================================================================================

``Modulation`` joins the first three into one call; the presets are such calls:

=========================  =============================================================================================
``OGM``                    slow the one that is ahead; with noise on parameter gradients, OGM-GE
``OPM``                    drop the features of the one that is ahead
``AGM``                    keep the difference at its running mean; Shapley logits
``MLB``                    slow the one that is ahead, speed up the one behind; classification and regression
``CGGM``                   less for the one whose accuracy rose most, once an epoch
``ARL``                    dependence inverse to entropy
``SMP``                    nothing for the one that is ahead, for a while
``pdmp_coefficient``       more for the one that is best alone
``miles_coefficient``      half the learning rate for the one that is used most, once an epoch
``MSLR``                   a learning rate of its own for each
``EpistemicModulation``    per sample: less for a modality that is unsure of it
``pmr_weights``            weights of two loss terms instead: a prototypical cross-entropy that speeds the slow ones up,
                           and an entropy that holds the fast ones back
=========================  =============================================================================================

A constant factor on the gradient of a branch does nothing under Adam, which divides it out again: there, use
``scale_updates``. A coefficient on one of several loss terms acts under every optimizer, as it changes the direction.
"""

from balancekit._shapley import shapley_values
from balancekit.modulation._acted import Acted, listening
from balancekit.modulation._agm import AGM, agm_coefficient, agm_ratio
from balancekit.modulation._arl import ARL, arl_coefficient
from balancekit.modulation._cggm import CGGM, cggm_coefficient
from balancekit.modulation._epistemic import EpistemicModulation, behind_coefficient
from balancekit.modulation._gradients import freeze, scale_gradients
from balancekit.modulation._logits import shapley_logits, slice_logits, zero_out_logits
from balancekit.modulation._miles import miles_coefficient, utilisation
from balancekit.modulation._mlb import MLB, two_sided_coefficient
from balancekit.modulation._modulate import modulate
from balancekit.modulation._modulation import Actuator, Coefficient, Modulated, Modulation, Modulator
from balancekit.modulation._mslr import MSLR
from balancekit.modulation._ogm import OGM, ogm_coefficient
from balancekit.modulation._opm import OPM, drop_features, drop_features_released, opm_probability
from balancekit.modulation._pdmp import pdmp_coefficient
from balancekit.modulation._pmr import pmr_weights
from balancekit.modulation._ratios import Ratio, discrepancy_ratio
from balancekit.modulation._scores import (
    Score,
    confidence_score,
    correct_score,
    cross_entropy_score,
    entropy_score,
    multilabel_score,
    regression_score,
    squared_error_score,
    true_class_score,
)
from balancekit.modulation._smp import SMP, suppress_best_coefficient
from balancekit.modulation._updates import base_rates, scale_updates

__all__ = [
    "AGM",
    "ARL",
    "CGGM",
    "MLB",
    "MSLR",
    "OGM",
    "OPM",
    "SMP",
    "Acted",
    "Actuator",
    "Coefficient",
    "EpistemicModulation",
    "Modulated",
    "Modulation",
    "Modulator",
    "Ratio",
    "Score",
    "agm_coefficient",
    "agm_ratio",
    "arl_coefficient",
    "base_rates",
    "behind_coefficient",
    "cggm_coefficient",
    "confidence_score",
    "correct_score",
    "cross_entropy_score",
    "discrepancy_ratio",
    "drop_features",
    "drop_features_released",
    "entropy_score",
    "freeze",
    "listening",
    "miles_coefficient",
    "modulate",
    "multilabel_score",
    "ogm_coefficient",
    "opm_probability",
    "pdmp_coefficient",
    "pmr_weights",
    "regression_score",
    "scale_gradients",
    "scale_updates",
    "shapley_logits",
    "shapley_values",
    "slice_logits",
    "squared_error_score",
    "suppress_best_coefficient",
    "true_class_score",
    "two_sided_coefficient",
    "utilisation",
    "zero_out_logits",
]
