"""ARL: dependence inverse to variance (Wei et al., ICCV 2025, arXiv 2507.10203).

    H_m = mean entropy of softmax(o_m)
    h_m = max(H_m / Σ_j H_j, 0.3)
    w_m = (1 / h_m) / Σ_j (1 / h_j)
    c_m = mean |o_m| / Σ_j mean |o_j|                     how loud each modality's logits are
    k_m = 1 + softmax_m(T · c_other(m) · w_m)

c_other is the other modality's share, and for more than two the mean of the others'. The released code computes the
weights and then uses 0.5 for both, a constant.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from balancekit._checks import expect_device, expect_floating, expect_number, expect_shape
from balancekit._typing import Bool, Float
from balancekit.modulation._arguments import expect_presence
from balancekit.modulation._modulation import Modulated, Modulator, Presence, batch_mean, presence
from balancekit.modulation._ratios import discrepancy_ratio
from balancekit.modulation._scores import entropy_score, stacked


def arl_coefficient(
    entropy: Float[Tensor, "m"],
    loudness: Float[Tensor, "m"],
    temperature: float = 8.0,
    *,
    present: Bool[Tensor, "m"] | None = None,
) -> Float[Tensor, "m"]:
    """1 + softmax(T · c_other · w): in (1, 2), and their mean is 1 + 1 / M.

    Args:
        entropy: H, at least 0. Where all are 0 their shares are equal.
        loudness: mean |logit| of each modality.
        temperature: T.
        present: which modalities there are; None for all. An absent one is in no share, and has the coefficient 1.
    """
    expect_floating("entropy", entropy, "of shape (m,)", ndim=1)
    expect_floating("loudness", loudness, "of shape (m,)", ndim=1)
    expect_shape("loudness", loudness, tuple(entropy.shape))
    expect_device("loudness", loudness, entropy)
    expect_number("temperature", temperature, low=0.0)
    here = torch.ones_like(entropy, dtype=torch.bool) if present is None else present
    expect_presence(here, entropy)
    w = here / _shares(entropy, here).clamp(min=0.3)
    c = _shares(loudness, here)
    others = (1 - c) / (here.sum() - 1).clamp(min=1)
    weight = (temperature * others * w / w.sum()).where(here, -torch.inf).softmax(-1)
    return torch.where(here, 1 + weight, 1)


def _shares(x: Tensor, here: Tensor) -> Tensor:
    """Parts of the sum over those that are `here`; equal ones of a sum of 0."""
    x = x.where(here, 0)
    return torch.where(x.sum() == 0, here / here.sum().clamp(min=1), x / x.sum())


class ARL(Modulator):
    """Asymmetric representation learning: (logits, labels) → a coefficient in (1, 2) for each modality.

    It is to scale the gradient at the features (:func:`modulate`), with a loss of each modality's own head besides,
    weighted by 4. It starts after five epochs.

    Args:
        temperature: T, 8.
        released: the constant 1 + 1 / M, whatever the logits.

    Example:
        >>> logits = {"audio": torch.tensor([[0.0, 3.0]]), "video": torch.tensor([[1.0, 0.0]])}
        >>> ARL()(logits, torch.tensor([1]))
        {'audio': tensor(1.4307), 'video': tensor(1.5693)}

    Method:
        Name: ARL
        Paper: Wei et al., ICCV 2025, arXiv 2507.10203
        Equation: weights inverse to entropy
        Hook: features' gradients
        Cost: a head a modality
        Modalities: any; others' mean
        Test: tests/oracles/test_modulation.py
    """

    def __init__(self, temperature: float = 8.0, *, released: bool = False) -> None:
        super().__init__()
        expect_number("temperature", temperature, low=0.0)
        self.temperature, self.released = temperature, released

    def find(self, logits: Mapping[str, Tensor], labels: Any, present: Presence | None) -> Modulated:
        """Entropy and loudness over the batch, and the coefficients. Labels are not used."""
        entropy = entropy_score(logits)
        names = tuple(logits)
        there = presence(names, entropy, present)
        both = torch.cat([entropy, stacked(logits).abs().mean(-1)], -1)
        means, counted = batch_mean(names, both, there.repeat(1, 2))
        (entropy, loudness), here = means.chunk(2, -1), counted[: len(names)]
        k = arl_coefficient(entropy, loudness, self.temperature, present=here)
        if self.released:
            k = torch.where(here, 1 + 1 / here.sum(), 1)
        return Modulated(names, entropy, discrepancy_ratio(entropy, present=here), k)
