"""From scores to ratios: how far a modality is ahead of the others.

A ratio is 1 where nothing is to be done: for equal scores, for a modality that is alone, and for one that is absent.
For two modalities every reference is the other one, ρ_m = s_m / s_other; they differ for more:

    pairwise   ρ_m = mean over j≠m of s_m / s_j         OGM-GE for any number, as its authors advise
    others     ρ_m = s_m / (mean over j≠m of s_j)       the inverse of MLB's
    min        ρ_m = s_m / (min over j≠m of s_j)
    a target   ρ_m = s_m / target_m
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from balancekit._checks import expect, expect_choice, expect_device, expect_floating
from balancekit._typing import Bool, Float
from balancekit.modulation._arguments import expect_presence, expect_table


@runtime_checkable
class Ratio(Protocol):
    """Any function from scores to ratios."""

    def __call__(self, scores: Float[Tensor, "*b m"], *, present: Bool[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
        """A ratio a modality; above 1 it is ahead."""
        ...


def discrepancy_ratio(
    scores: Float[Tensor, "*b m"],
    *,
    reference: Literal["others", "pairwise", "min"] | Tensor = "others",
    present: Bool[Tensor, "*b m"] | None = None,
) -> Float[Tensor, "*b m"]:
    """How many times the reference each score is; see the table above.

    Only ratios of scores matter, and the order of the modalities does not. A score of 0 gives the limit: 0 against a
    positive reference, infinity the other way round, and 1 against 0.

    Args:
        scores: at least 0, higher is faster; of a batch "m", or one row a sample "b m".
        reference: "others", "pairwise", "min", or a positive tensor "m", what each score is meant to be.
        present: which modalities there are; None for all. Absent ones are in no reference, and have the ratio 1.

    Example:
        >>> discrepancy_ratio(torch.tensor([0.8, 0.4, 0.2]))
        tensor([2.6667, 0.8000, 0.3333])
        >>> discrepancy_ratio(torch.tensor([0.8, 0.4, 0.2]), reference="pairwise")
        tensor([3.0000, 1.2500, 0.3750])
        >>> discrepancy_ratio(torch.tensor([0.8, 0.4, 0.2]), present=torch.tensor([True, True, False]))
        tensor([2.0000, 0.5000, 1.0000])
    """
    expect_table("scores", scores)
    if present is None:
        present = torch.ones_like(scores, dtype=torch.bool)
    expect_presence(present, scores)
    if isinstance(reference, Tensor):
        expect_floating("reference", reference, f"of shape ({scores.shape[-1]},)")
        expect(reference.shape == scores.shape[-1:], "reference", f"a tensor of shape ({scores.shape[-1]},)", reference)
        expect_device("reference", reference, scores)
        return torch.where(present, _over(scores, reference), 1)
    expect(isinstance(reference, str), "reference", "a word or a tensor", reference, error=TypeError)
    expect_choice("reference", reference, ("others", "pairwise", "min"))
    modalities = scores.shape[-1]
    other = present.unsqueeze(-2) & ~torch.eye(modalities, dtype=torch.bool, device=scores.device)
    count = other.sum(-1)
    theirs = scores.unsqueeze(-2).expand(other.shape)
    least = theirs.where(other, torch.inf).amin(-1)
    if reference == "pairwise":
        pairs = torch.where(other, _over(scores.unsqueeze(-1), theirs), 0)
        ratio = _sum(pairs) / count
    elif reference == "min":
        ratio = _over(scores, least)
    else:
        above = torch.where(other & (theirs != least.unsqueeze(-1)), theirs - least.unsqueeze(-1), 0)
        ratio = _over(scores, least + _sum(above) / count)  # of equal scores it is that score, to the last bit
    return torch.where(present & (count > 0), ratio, 1)


def _sum(x: Tensor) -> Tensor:
    """Sum over the last axis in ascending order: modalities that tie must not differ by their place."""
    return x.sort(-1).values.sum(-1)


def _over(a: Tensor, b: Tensor) -> Tensor:
    """Divide; 1 for 0 / 0."""
    return torch.where((a == 0) & (b == 0), 1, a / b)
