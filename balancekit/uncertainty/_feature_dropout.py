"""What dropout on a fixed feature yields, without the passes.

The uncertainty of MMDG (Lin et al. 2024, arXiv 2402.19298) is the standard deviation over T passes of dropout on a
feature x, with nothing behind the dropout. If k of the T passes keep an element, k ~ Binomial(T, 1-p), then exactly

    std        = |x| · spread(k),   spread(k) = sqrt(k (T-k) / (T (T-1))) / (1-p)
    std        → |x| · sqrt(p / (1-p))                           for T → ∞
    confidence = mean_d exp(-rate · std_d)

The law of the spread, and how few values stand for it in an expectation, is in ``_spread_law``.
"""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from balancekit._checks import expect, expect_choice, expect_count, expect_floating, expect_generator, expect_number
from balancekit._precision import widen
from balancekit._typing import Float
from balancekit.uncertainty._confidence import positive
from balancekit.uncertainty._spread_law import spread_law

TOLERANCE = 1e-3  # of the expected confidence of one element


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
        generator: of the draw, on the device of `x`; without it the global stream advances. A compiled graph cannot
            hold one: ``balancekit.fused`` then calls this function as it is.

    Returns:
        Like `x`, in its shape and dtype; half precision is computed in float32. Differentiable in `x`, with
        gradient 0 at 0.

    Example:
        >>> dropout_std(torch.tensor([1.0, -2.0]), p=0.5)
        tensor([1., 2.])
    """
    expect_floating("x", x, '"..."')
    expect_number("p", p, low=0.0, high=1.0, high_open=True)
    if samples is not None:
        expect_count("samples", samples, low=2)
    expect_generator("generator", generator)
    expect(generator is None or samples is not None, "generator", "None where nothing is drawn", generator)
    size = widen(x.abs())
    spread = math.sqrt(p / (1 - p)) if samples is None else _drawn_spread(size, p, samples, generator)
    return size.mul_(spread).to(x.dtype)


def dropout_confidence(
    x: Float[Tensor, "*b d"],
    p: float = 0.3,
    *,
    rate: float = 2.25,
    samples: int = 20,
    method: Literal["expected", "limit", "sampled"] = "expected",
    detach: bool = True,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*b"]:
    """Confidence from dropout on `x`, MMDG's UEM: it measures the magnitude of the features, not doubt.

    A token of small features gets a confidence near 1, one of large features a low one; no weight takes part. The
    exponential comes first, then the mean over channels.

    Args:
        x: features or tokens.
        p: probability to drop, in [0, 1).
        rate: of the exponential, per unit of standard deviation.
        samples: number T of passes that "expected" and "sampled" stand for; "limit" has none.
        method: "expected" for the expectation over the dropout, by as few exponentials as are right to 1e-3 for any
            element: two at the defaults, where they are right to 1.4e-4. "limit" for T → ∞, one exponential, slightly
            lower (0.004 on standard normal features). "sampled" for one draw with the law of the T passes. The
            defaults of `p`, `rate` and `samples` are MMDG's; the paper's method is "sampled".
        detach: whether to cut the graph: a confidence is a weight, and a loss could lower it by growing the features.
            With False the result is differentiable in `x`, with gradient 0 at 0.
        generator: of the draw of "sampled", on the device of `x`; without it the global stream advances. A compiled
            graph cannot hold one: ``balancekit.fused`` then calls this function as it is.

    Returns:
        Confidence in (0, 1] with the last axis averaged away, in float32 or wider.

    Example:
        >>> dropout_confidence(torch.tensor([[0.0, 0.0], [1.0, -1.0], [3.0, -3.0]]))
        tensor([1.0000, 0.2353, 0.0152])
    """
    expect_floating("x", x, '"... d"')
    expect(x.ndim >= 1 and x.shape[-1] >= 1, "x", 'a tensor "... d" with at least one channel', x)
    expect_number("p", p, low=0.0, high=1.0, high_open=True)
    expect_number("rate", rate, low=0.0, high=float("inf"), low_open=True, high_open=True)
    expect_count("samples", samples, low=2)
    expect_choice("method", method, ("expected", "limit", "sampled"))
    expect(isinstance(detach, bool), "detach", "a bool", detach, error=TypeError)
    expect_generator("generator", generator)
    expect(generator is None or method == "sampled", "generator", 'None unless method is "sampled"', generator)
    size = widen((x.detach() if detach else x).abs())
    rate /= math.log(2)  # from here on of powers of 2, which have faster kernels
    if method == "expected":
        (_, never), *law = spread_law(p, samples, TOLERANCE)  # the spread is 0 where all passes agree
        confidence = torch.full_like(size[..., 0], never)
        for node, weight in law:
            confidence = confidence + weight * _decayed(size.mul(-rate * node))
    elif method == "limit":
        confidence = _decayed(size.mul_(-rate * math.sqrt(p / (1 - p))))
    else:
        confidence = _decayed(size.mul_(_drawn_spread(size, p, samples, generator)).mul_(-rate))
    return positive(confidence.clamp(max=1))  # probabilities sum to 1 but for rounding


def _decayed(exponent: Tensor) -> Tensor:
    """Mean over channels of 2 to the `exponent`, which is overwritten."""
    return exponent.exp2_().mean(-1)


def _drawn_spread(like: Tensor, p: float, samples: int, generator: torch.Generator | None) -> Tensor:
    """One draw for each element: its value rises by a step wherever a uniform number reaches the next probability.

    In torch 2.13 ``uniform_`` keeps the device's generator under ``torch.compile``, which replaces ``rand`` by a slower
    one. The comparison is written into floating point, as results of another type take longer.
    """
    uniform = torch.empty_like(like).uniform_(generator=generator)
    spread, reached = torch.zeros_like(like), torch.empty_like(like)
    below = 0.0
    for (value, probability), (following, _) in pairwise(spread_law(p, samples)):
        below += probability
        spread.add_(reached.copy_(uniform).ge_(below), alpha=following - value)
    return spread
