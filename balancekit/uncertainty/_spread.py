"""From samples of tokens to one doubt a token."""

import math

import torch
from torch import Tensor

from balancekit._checks import expect, expect_floating
from balancekit._precision import widen
from balancekit._typing import Float


def sample_spread(samples: Float[Tensor, "s *b d"]) -> Float[Tensor, "*b"]:
    """How far the samples of a feature or a token lie apart: an uncertainty, in the unit of the features.

    The root mean square over channels of the unbiased standard deviation over samples,

        spread = sqrt( Σ_s Σ_d (x_sd − mean_d)² / ((s − 1) · d) )

    It turns Monte-Carlo dropout *inside* a block, where weights follow the dropout, or an ensemble of blocks, into
    what :func:`exponential_confidence` and then a gate take. Features of large scale have a large spread: put it behind
    a normalisation, or choose the rate of the confidence by the spread on clean data.

    Args:
        samples: of tokens "s b n d", or of features "s b d"; at least two.

    Returns:
        The spread "b n", or "b", in float32 or wider; its gradient is 0 where all samples are equal.

    Example:
        >>> from balancekit.uncertainty import MCDropout, exponential_confidence
        >>> block = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True).eval()
        >>> tokens = torch.randn(4, 5, 8)
        >>> confidence = exponential_confidence(sample_spread(MCDropout(block)(tokens)))
        >>> confidence.shape
        torch.Size([4, 5])
    """
    expect_floating("samples", samples, '"s b n d"')
    found = samples.ndim >= 2 and samples.shape[0] >= 2 and samples.shape[-1] >= 1
    expect(found, "samples", 'a tensor "s b n d" with at least two samples and one channel', samples)
    samples = widen(samples)
    freedom = (samples.shape[0] - 1) * samples.shape[-1]
    return torch.linalg.vector_norm(samples - samples.mean(0), dim=(0, -1)) / math.sqrt(freedom)
