"""Proper scoring rules: how good the probabilities of the mixture of all samples are, input by input.

For the samples' probabilities p_s, their mean p, and the label y (Lakshminarayanan et al. 2017, arXiv 1612.01474,
Sec. 2.2; Brier 1950, Eq. 2),

    negative log-likelihood = −log p_y = log s − logsumexp_s(log p_sy)
    Brier score             = Σ_c (p_c − [c = y])²
"""

import math

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, in_range
from balancekit._precision import widen
from balancekit._typing import Float, Int
from balancekit.uncertainty._measures import expect_samples


def negative_log_likelihood(logits: Float[Tensor, "s *b c"], labels: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Minus the log of the mean probability of the label, in nats: 0 is best; log c is what a guess gets.

    From logits, because probabilities may have underflowed to 0: here the result is finite for all finite logits.

    Args:
        logits: samples of them over the last axis; for one model ``logits[None]``.
        labels: one class for each input.

    Example:
        >>> samples = torch.tensor([[[0.0, 0.0]], [[0.0, -500.0]]])
        >>> negative_log_likelihood(samples, torch.tensor([0])), negative_log_likelihood(samples, torch.tensor([1]))
        (tensor([0.2877]), tensor([1.3863]))
    """
    expect_samples("logits", logits)
    _expect_classes(labels, logits)
    each = torch.log_softmax(widen(logits), -1)
    index = labels.long().expand(logits.shape[:-1])[..., None]
    return math.log(logits.shape[0]) - each.gather(-1, index)[..., 0].logsumexp(0)


def brier_score(probs: Float[Tensor, "s *b c"], labels: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Squared distance of the mean distribution from the label, summed over classes: 0 is best, 2 is worst.

    For two classes this is twice the square of one probability's error, which some call the Brier score.

    Args:
        probs: samples of probabilities over the last axis; for one model ``probs[None]``.
        labels: one class for each input.

    Example:
        >>> brier_score(torch.tensor([[[0.75, 0.25]], [[0.25, 0.75]]]), torch.tensor([0]))
        tensor([0.5000])
    """
    expect_samples("probs", probs)
    _expect_classes(labels, probs)
    truth = labels[..., None] == torch.arange(probs.shape[-1], device=probs.device)
    return (widen(probs).mean(0) - truth.to(torch.float32)).square().sum(-1)


def _expect_classes(labels: object, samples: Tensor) -> None:
    shape = tuple(samples.shape[1:-1])
    expect(isinstance(labels, Tensor), "labels", f"an integer tensor of shape {shape}", labels, error=TypeError)
    assert isinstance(labels, Tensor)
    expect(tuple(labels.shape) == shape, "labels", f"an integer tensor of shape {shape}", labels)
    in_range("labels", labels, samples.shape[-1])
    expect_device("labels", labels, samples)
