"""How far to trust an output, a feature or a token: estimators, measures, distances, confidence.

A modality can be unreliable: a drifting sensor, a new site, a covered lens. Before it can be suppressed, its doubt must
be a number. There are two ways to it.

**From samples.** *Estimators* turn inputs into samples ``"s b ..."``, first axis s:

- :class:`MCDropout`: any one model that has dropout, be it in attention, an LSTM, stochastic depth or a function.
- :class:`DeepEnsemble`: several models; the better estimate, at the price of training each.
- :func:`linear_dropout_moments`: dropout before a last linear layer; exact mean and covariance, no sampling.

*Measures* turn samples of probabilities into uncertainty ``"b ..."`` in nats, which grows with doubt.
:func:`predictive_entropy` (total) = :func:`expected_entropy` (aleatoric: the data are ambiguous) +
:func:`mutual_information` (epistemic: the samples disagree). :func:`variation_ratio` counts dissenting votes,
:func:`sample_spread` measures how far samples of tokens lie apart. :class:`ProbabilitySummary` and
:class:`ValueSummary` take samples one after the other (``estimator.stream(x)``) and keep none of them.

**From distances.** *Statistics of clean data* say how far a token is from what was seen:

- :class:`FeatureDensity`: from its modality's own distribution, per class or per place if you like.
- :class:`CrossModalResidual`: from what the other modalities, or its neighbours, predict.

Both read their own training quantiles as a confidence. On tokens that a sensor corrupted, these two see what samples
and the meter below do not: doubt of the task is not doubt of the sensor (figures in docs/rooms/uncertainty.md).

:func:`exponential_confidence` turns any uncertainty into confidence in (0, 1], which adapters and gradient surgery
take; :class:`ProbabilisticQuery` learns one with the task.

    >>> import torch
    >>> from balancekit.uncertainty import MCDropout, exponential_confidence, mutual_information
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3))
    >>> samples = MCDropout(model, samples=20)(torch.randn(5, 4))
    >>> confidence = exponential_confidence(mutual_information(samples.softmax(-1)))
    >>> samples.shape, confidence.shape
    (torch.Size([20, 5, 3]), torch.Size([5]))

:func:`dropout_std` and :func:`dropout_confidence` are the published uncertainty module of MMDG (UEM): dropout on a
feature with nothing behind it. That has a closed form, |x| times a constant. It costs next to nothing and reproduces
the paper, but it is a meter of magnitude: no weight of the model takes part.

Whether an uncertainty deserves its name is measured on errors: :func:`negative_log_likelihood`, :func:`brier_score`,
:func:`risk_coverage`, :func:`area_under_risk_coverage`. Calibration error and AUROC are torchmetrics'.
"""

from balancekit.uncertainty._confidence import exponential_confidence
from balancekit.uncertainty._density import FeatureDensity
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
from balancekit.uncertainty._probabilistic import GaussianTokens, ProbabilisticQuery, standard_normal_divergence
from balancekit.uncertainty._probability_summary import ProbabilityStatistics, ProbabilitySummary
from balancekit.uncertainty._residual import CrossModalResidual
from balancekit.uncertainty._risk_coverage import area_under_risk_coverage, risk_coverage
from balancekit.uncertainty._scoring import brier_score, negative_log_likelihood
from balancekit.uncertainty._spread import sample_spread
from balancekit.uncertainty._value_summary import ValueStatistics, ValueSummary

__all__ = [
    "CrossModalResidual",
    "DeepEnsemble",
    "FeatureDensity",
    "GaussianTokens",
    "MCDropout",
    "ProbabilisticQuery",
    "ProbabilityStatistics",
    "ProbabilitySummary",
    "ValueStatistics",
    "ValueSummary",
    "area_under_risk_coverage",
    "brier_score",
    "dropout_confidence",
    "dropout_std",
    "expected_entropy",
    "exponential_confidence",
    "linear_dropout_moments",
    "mutual_information",
    "negative_log_likelihood",
    "predictive_entropy",
    "risk_coverage",
    "sample_spread",
    "standard_normal_divergence",
    "variation_ratio",
]
