"""A coefficient for every sample, from epistemic uncertainty: the cell that no published method occupies.

    s_im = exp(−rate · u_im)                      u: any uncertainty of sample i in modality m
    k_im = min(1, s_im / mean over j≠m of s_ij)

A modality that knows a sample less well than the others do takes less gradient from it; the surest one takes all of it.
For two modalities k = exp(−rate · relu(u_m − u_other)).
"""

from functools import partial

from torch import Tensor

from balancekit._checks import expect_number
from balancekit._typing import Float
from balancekit.modulation._modulation import Modulation
from balancekit.modulation._ratios import discrepancy_ratio
from balancekit.modulation._scores import confidence_score


def behind_coefficient(ratio: Float[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """The ratio where it is below 1, else 1."""
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
        super().__init__(partial(confidence_score, rate=rate), discrepancy_ratio, behind_coefficient, per_sample=True)
