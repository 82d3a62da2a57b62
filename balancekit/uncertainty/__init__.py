"""How far to trust an output, or a feature: estimators, measures, confidence.

A modality can be unreliable: a drifting sensor, a new site, a covered lens. Before it can be suppressed, its doubt must
be a number. Three steps, each a part of its own:

1. **Estimators** turn inputs into samples ``"s b ..."``, first axis s.

   - :class:`MCDropout`: any one model that has dropout, be it in attention, an LSTM, stochastic depth or a function.
   - :class:`DeepEnsemble`: several models; the better estimate, at the price of training each.
   - :func:`linear_dropout_moments`: dropout before a last linear layer; exact mean and covariance, no sampling.

2. **Measures** turn samples of probabilities into uncertainty ``"b ..."`` in nats, which grows with doubt.
   :func:`predictive_entropy` (total) = :func:`expected_entropy` (aleatoric: the data are ambiguous) +
   :func:`mutual_information` (epistemic: the samples disagree). :func:`variation_ratio` counts dissenting votes.

3. :func:`exponential_confidence` turns uncertainty into confidence in (0, 1], which adapters and gradient surgery take.

    >>> import torch
    >>> from balancekit.uncertainty import MCDropout, exponential_confidence, mutual_information
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3))
    >>> samples = MCDropout(model, samples=20)(torch.randn(5, 4))
    >>> confidence = exponential_confidence(mutual_information(samples.softmax(-1)))
    >>> samples.shape, confidence.shape
    (torch.Size([20, 5, 3]), torch.Size([5]))

:func:`dropout_std` and :func:`dropout_confidence` are the published uncertainty module of MMDG (UEM): dropout on a
feature with nothing behind it. That has a closed form, |x| times a constant. It costs next to nothing and reproduces
the paper, but it is a meter of magnitude: no weight of the model takes part. Where doubt is meant, use an estimator.
"""

from balancekit.uncertainty._confidence import exponential_confidence
from balancekit.uncertainty._ensemble import DeepEnsemble
from balancekit.uncertainty._feature_dropout import dropout_confidence, dropout_std
from balancekit.uncertainty._linear_moments import linear_dropout_moments
from balancekit.uncertainty._mc_dropout import MCDropout
from balancekit.uncertainty._measures import (
    expected_entropy,
    mutual_information,
    predictive_entropy,
    variation_ratio,
)

__all__ = [
    "DeepEnsemble",
    "MCDropout",
    "dropout_confidence",
    "dropout_std",
    "expected_entropy",
    "exponential_confidence",
    "linear_dropout_moments",
    "mutual_information",
    "predictive_entropy",
    "variation_ratio",
]
