"""A coefficient for every sample, from epistemic uncertainty: the cell that no published method occupies.

    s_im = −rate · u_im                           the logarithm of a confidence; u: any uncertainty of the sample
    k_im = min(1, exp(s_im) / mean over j≠m of exp(s_ij))

A modality that knows a sample less well than the others do takes less gradient from it; the surest one takes all of it.
For two modalities k = exp(−rate · relu(u_m − u_other)).
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from balancekit._checks import expect_number
from balancekit._typing import Bool, Float
from balancekit.modulation._arguments import expect_table
from balancekit.modulation._modulation import Modulation
from balancekit.modulation._scores import confidence_score


def log_confidence(
    uncertainty: Mapping[str, Float[Tensor, "b"]], labels: object = None, *, rate: float
) -> Float[Tensor, "b m"]:
    """−rate · u, which does not underflow."""
    return confidence_score(uncertainty, rate=rate, log=True)


def confidence_ratio(scores: Float[Tensor, "*b m"], *, present: Bool[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """The confidence over the mean of the others', from logarithms; 1 where there is no other."""
    other = present.unsqueeze(-2) & ~torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    theirs = torch.where(other, scores.unsqueeze(-2), -torch.inf)
    mean = theirs.logsumexp(-1) - other.sum(-1).clamp(min=1).to(scores.dtype).log()
    return torch.where(present & other.any(-1), (scores - mean).exp(), 1)


def behind_coefficient(ratio: Float[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """The ratio where it is below 1, else 1."""
    expect_table("ratio", ratio)
    return ratio.clamp(max=1)


class EpistemicModulation(Modulation):
    """Uncertainties {modality: "b"} → a coefficient in [0, 1] for each modality and sample, for :func:`modulate`.

    Nothing here says that it helps; measure it. An uncertainty that is not calibrated against the errors of its own
    modality scales at random.

    Args:
        rate: how fast confidence falls with u.

    Example:
        >>> import torch
        >>> u = {"audio": torch.tensor([0.0, 1.0]), "video": torch.tensor([0.5, 0.0])}
        >>> EpistemicModulation()(u)
        {'audio': tensor([1.0000, 0.3679]), 'video': tensor([0.6065, 1.0000])}

    Method:
        Name: epistemic modulation
        Paper: this library
        Equation: in its docstring
        Hook: features' gradients, per sample
        Cost: an uncertainty a sample
        Modalities: any; others' mean
        Test: tests/oracles/test_modulation.py
    """

    def __init__(self, rate: float = 1.0) -> None:
        expect_number("rate", rate, low=0.0, low_open=True)
        super().__init__(partial(log_confidence, rate=rate), confidence_ratio, behind_coefficient, per_sample=True)
