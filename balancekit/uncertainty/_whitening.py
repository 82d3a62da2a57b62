"""Linear maps that give deviations the covariance 1: their length is then the Mahalanobis distance.

A covariance is taken apart into deviations and correlations, S = diag(std) · C · diag(std), so that no channel's unit
or scale matters, and C is shrunk towards the identity (Schäfer and Strimmer 2005, target D: unequal variances):

    C_shrunk = (1 − shrinkage) · C + shrinkage · I
"""

import torch
from torch import Tensor

from balancekit._typing import Float

FLOOR = 1e-6  # of a channel's variance, as a part of the mean variance; and 1e-30, where all channels are constant
SHRINKAGE = 1e-3  # keeps a factorisation of nearly dependent channels away from the rounding of float32


def deviations(variance: Float[Tensor, "d"]) -> Float[Tensor, "d"]:
    """Standard deviation of each channel; one that is constant gets a thousandth of the root mean square of all."""
    return torch.maximum(variance, FLOOR * variance.mean()).clamp(min=1e-30).sqrt()


def correlations(covariance: Float[Tensor, "d d"], std: Float[Tensor, "d"]) -> Float[Tensor, "d d"]:
    """Correlations, with 1 on the diagonal also where a channel is constant."""
    correlation = covariance / std / std[:, None]
    return correlation.diagonal_scatter(torch.ones_like(std))


def identity(like: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The identity of that size, on that device."""
    return torch.eye(len(like), dtype=like.dtype, device=like.device)


def shrunk(correlation: Float[Tensor, "d d"], shrinkage: float) -> Float[Tensor, "d d"]:
    """Correlations between different channels times 1 − shrinkage."""
    return torch.lerp(correlation, identity(correlation), shrinkage)


def cholesky(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Lower factor, NaN where the matrix is not positive definite: the host does not look."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where(info == 0, factor, torch.nan)


def whitener(correlation: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """W = L⁻¹ of C = L Lᵀ: W y has the covariance 1 where y has C."""
    factor = cholesky(correlation)
    return torch.linalg.solve_triangular(factor, identity(factor), upper=False)


def principal_gains(correlation: Float[Tensor, "d d"], rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilistic principal components (Tipping and Bishop 1999): leading directions, and an isotropic rest.

    Returns:
        basis "d r", gain "r" and scale "": y · scale + ((y · scale) basis · gain) basisᵀ has the covariance 1 where y
        has the leading variances along the basis, and their remaining mean, 1/scale², in all other directions.
    """
    variances, vectors = torch.linalg.eigh(correlation)
    lost, kept = variances[:-rank].mean().clamp(min=FLOOR), variances[-rank:]
    return vectors[:, -rank:], (lost / kept.clamp(min=FLOOR)).sqrt() - 1, lost.rsqrt()
