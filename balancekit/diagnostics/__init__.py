"""Diagnostics: what the balancing saw, what it did, and whether that came to anything.

Much published balancing does nothing: a coefficient that is never assigned, a loss term without a gradient, a factor
that Adam divides out again. So what is recorded here ends at the parameters, and an alarm names the cause.

=================================  ===================================================================================
``watch``                          a context manager around a training: scores, ratios, coefficients, cosines and
                                   conflicts of gradients, update ratios, gradient energy, efficacy; alarms
``History``                        what it yields: series by name; ``last`` for any logger, ``to_numpy``, ``to_pandas``
``shapley_contributions``          what each modality adds to the accuracy
``permutation_contributions``      how far the prediction moves if a modality is mixed up
``probe_accuracy``                 what an encoder's features are worth by themselves
=================================  ===================================================================================

Whether a modality's probabilities can be believed, which every score takes for granted, torchmetrics tells.
"""

from balancekit.diagnostics._contributions import permutation_contributions, shapley_contributions
from balancekit.diagnostics._history import Alarm, History, NullEffectWarning
from balancekit.diagnostics._probe import probe_accuracy
from balancekit.diagnostics._watch import Watched, watch

__all__ = [
    "Alarm",
    "History",
    "NullEffectWarning",
    "Watched",
    "permutation_contributions",
    "probe_accuracy",
    "shapley_contributions",
    "watch",
]
