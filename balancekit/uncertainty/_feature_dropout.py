"""What dropout on a fixed feature yields, without the passes.

The uncertainty of MMDG (Lin et al. 2024, arXiv 2402.19298) is the standard deviation over T passes of dropout on a
feature x, with nothing behind the dropout. If k of the T passes keep an element, k ~ Binomial(T, 1-p), then exactly

    std        = |x| · spread(k),   spread(k) = sqrt(k (T-k) / (T (T-1))) / (1-p)
    std        → |x| · sqrt(p / (1-p))                           for T → ∞
    confidence = mean_d exp(-rate · std_d)

k and T-k give the same spread, so there are only T//2 + 1 different ones.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from balancekit._checks import expect, expect_choice, expect_count, expect_floating, expect_number
from balancekit._typing import Float
from balancekit.uncertainty._confidence import positive, widen


def dropout_std(
    x: Float[Tensor, "*b"], p: float = 0.3, *, samples: int | None = None, generator: torch.Generator | None = None
) -> Float[Tensor, "*b"]:
    """Standard deviation of dropout on `x`: it measures the magnitude of the features, not doubt.

    No weight takes part, so the result is |x| times a constant, or times a random number. For doubt, use
    :class:`MCDropout`, :class:`DeepEnsemble` or :func:`linear_dropout_moments`.

    Args:
        x: features of any shape.
        p: probability to drop, in [0, 1); 0.3 is MMDG's.
        samples: None for the limit |x| sqrt(p/(1-p)) of many passes; T for one draw of the unbiased standard deviation
            over T passes, which has their exact law (to the resolution of one float32 uniform, 6e-8).
        generator: of the draw, on the device of `x`; without it the global stream advances.

    Returns:
        Like `x`, in its shape and dtype; half precision is computed in float32. Differentiable in `x`.

    Example:
        >>> dropout_std(torch.tensor([1.0, -2.0]), p=0.5)
        tensor([1., 2.])
    """
    expect_floating("x", x, '"..."')
    expect_number("p", p, low=0.0, high=1.0, high_open=True)
    if samples is not None:
        expect_count("samples", samples, low=2)
    expect(generator is None or samples is not None, "generator", "None where nothing is drawn", generator)
    return _std(widen(x), p, samples, generator).to(x.dtype)


def dropout_confidence(
    x: Float[Tensor, "*b d"],
    p: float = 0.3,
    *,
    rate: float = 2.25,
    samples: int = 20,
    method: Literal["expected", "limit", "sampled"] = "expected",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*b"]:
    """Confidence from dropout on `x`, MMDG's UEM: it measures the magnitude of the features, not doubt.

    A token of small features gets a confidence near 1, one of large features a low one; no weight takes part. The
    exponential comes first, then the mean over channels. Detached.

    Args:
        x: features or tokens.
        p: probability to drop, in [0, 1).
        rate: of the exponential, per unit of standard deviation.
        samples: number T of passes that "expected" and "sampled" stand for; "limit" has none.
        method: "expected" for the expectation over the dropout, a sum of T//2 + 1 exponentials; "limit" for T → ∞, one
            exponential, slightly lower (0.004 on standard normal features); "sampled" for one draw with the law of
            the T passes. The defaults of `p`, `rate` and `samples` are MMDG's; the paper's method is "sampled".
        generator: of the draw of "sampled", on the device of `x`; without it the global stream advances.

    Returns:
        Confidence in (0, 1] with the last axis averaged away, in float32 or wider.

    Example:
        >>> dropout_confidence(torch.tensor([[0.0, 0.0], [1.0, -1.0], [3.0, -3.0]]))
        tensor([1.0000, 0.2354, 0.0153])
    """
    expect_floating("x", x, '"... d"')
    expect(x.ndim >= 1 and x.shape[-1] >= 1, "x", 'a tensor "... d" with at least one channel', x)
    expect_number("p", p, low=0.0, high=1.0, high_open=True)
    expect_number("rate", rate, low=0.0, high=float("inf"), low_open=True, high_open=True)
    expect_count("samples", samples, low=2)
    expect_choice("method", method, ("expected", "limit", "sampled"))
    expect(generator is None or method == "sampled", "generator", 'None unless method is "sampled"', generator)
    x = widen(x.detach())
    if method == "expected":
        confidence = _expected_confidence(x, p, rate, samples)
    else:
        confidence = torch.exp(-rate * _std(x, p, samples if method == "sampled" else None, generator))
    return positive(confidence.mean(-1).clamp(max=1))  # probabilities sum to 1 but for rounding


def _std(x: Tensor, p: float, samples: int | None, generator: torch.Generator | None) -> Tensor:
    if samples is None:
        return x.abs() * math.sqrt(p / (1 - p))
    uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    (_, below), *law = _law_of_spread(p, samples)
    spread = torch.zeros_like(x)
    for value, probability in law:
        spread = torch.where(uniform < below, spread, value)
        below += probability
    return x.abs() * spread


def _expected_confidence(x: Tensor, p: float, rate: float, samples: int) -> Tensor:
    (_, never), *law = _law_of_spread(p, samples)
    size = x.abs()
    confidence = torch.full_like(x, never)  # the spread is 0 where all passes agree
    for value, probability in law:
        confidence = confidence + probability * torch.exp(-rate * value * size)
    return confidence


def _law_of_spread(p: float, samples: int) -> list[tuple[float, float]]:
    """Values of the spread in rising order, from 0, and the probability of each."""
    law = []
    for k in range(samples // 2 + 1):
        value = math.sqrt(k * (samples - k) / (samples * (samples - 1))) / (1 - p)
        law.append((value, sum(_binomial(j, samples, 1 - p) for j in {k, samples - k})))
    return law


def _binomial(k: int, n: int, q: float) -> float:
    """Probability of k successes in n trials of probability q > 0."""
    if q == 1:
        return float(k == n)
    log_choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log_choose + k * math.log(q) + (n - k) * math.log1p(-q))
