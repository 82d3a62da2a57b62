"""A bridge: every TorchJD weighting of Gram matrices is a rule.

TorchJD (torchjd.org; Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232) cuts an
aggregator in two, as is done here: a weighting, from the Gram matrix "r r" of the gradients to weights "r", and a sum.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from balancekit._checks import describe, expect_shape
from balancekit._typing import Float
from balancekit.surgery._rule import Rule, Step

Weighting = Callable[[Tensor], Tensor]


def from_torchjd(weighting: Weighting) -> Rule:
    """The rule that asks `weighting` for each granule.

    It is given the rows that are not zero: the total's, and those of the present modalities that reach the granule. So
    their number may change from granule to granule and from step to step, which a weighting with a preference for each
    row does not allow. Their Gram matrix is divided by its trace, so that the weights cannot depend on a common scale
    of the losses. The weights are TorchJD's: those of a mean add up to 1, not to the number of rows.

    Which rows are zero, and whether all are finite, is read on the host, once a step; many weightings read more. One
    that draws at random, or keeps a state, does not keep the laws of a rule.

    Args:
        weighting: an object such as ``torchjd.aggregation.UPGradWeighting()``: from a matrix "r r" to a vector "r".

    Raises:
        TypeError: for a class, and for an aggregator, which would take the Gram matrix for the gradients.

    Example:
        With TorchJD installed, ``from_torchjd(UPGradWeighting())``; any function of that form will do.

        >>> rule = from_torchjd(lambda gram: 1 / gram.diagonal().sqrt() / len(gram))
        >>> step = Step(*torch.zeros(3, 2), torch.ones(2, dtype=torch.bool), torch.tensor([0]), torch.ones(1))
        >>> rule(torch.diag(torch.tensor([4.0, 0.0, 4.0]))[None], step)
        tensor([[0.7071, 0.0000, 0.7071]])
    """
    expected = "weighting: expected an object that maps a Gram matrix to weights, such as UPGradWeighting()"
    if isinstance(weighting, type) or not callable(weighting):
        raise TypeError(f"{expected}, found {weighting if isinstance(weighting, type) else describe(weighting)}")
    if hasattr(weighting, "gramian_weighting"):
        raise TypeError(f"{expected}, found the aggregator {weighting}; pass its gramian_weighting")
    return _Weighted(weighting)


class _Weighted:
    """A weighting of Gram matrices as a rule."""

    uses_total = True

    def __init__(self, weighting: Weighting) -> None:
        self.weighting = weighting

    def __call__(self, gram: Float[Tensor, "g r r"], step: Step) -> Float[Tensor, "g r"]:
        """Ask the weighting for each granule; NaN where the Gram matrix is not finite."""
        there = gram.diagonal(dim1=-2, dim2=-1) != 0
        finite = gram.isfinite().all(-1).all(-1, keepdim=True)
        weights = torch.where(there & ~finite, torch.nan, torch.zeros_like(gram[..., 0]))
        for g, (*rows, is_finite) in enumerate(torch.cat([there, finite], -1).tolist()):
            index = [r for r, is_there in enumerate(rows) if is_there]
            if index and is_finite:
                block = gram[g][index][:, index]
                found = self.weighting(block / block.trace())
                expect_shape("the weights of the weighting", found, (len(index),))
                weights[g, index] = found.to(weights)
        return weights

    def __repr__(self) -> str:
        return f"from_torchjd({self.weighting})"
