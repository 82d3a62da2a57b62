"""AGM: keep the difference between modalities at its running mean (Li et al., ICCV 2023, arXiv 2308.07686).

    s_m = mean cross-entropy of the Shapley logits φ_m                   lower is faster
    r_m = exp(mean over j≠m of s_j − s_m)                                above 1: ahead
    τ_m = the same of the running means ŝ
    k_m = exp(α min(τ_m − r_m, cap))

For two modalities r_a = exp(s_v − s_a). The released code takes exp(3/2 (s̄ − s_m)) for three, which is the same.
"""

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_count, expect_floating, expect_number
from balancekit._typing import Bool, Float
from balancekit.modulation._arguments import expect_presence, expect_table
from balancekit.modulation._modulation import Modulation
from balancekit.modulation._scores import cross_entropy_score


def clamped_cross_entropy(logits: Mapping[str, Float[Tensor, "b c"]], labels: Tensor) -> Float[Tensor, "b m"]:
    """Cross-entropy in nats with probabilities of at least 1e-8; where one is 0 it is infinite, as the loss is."""
    error = cross_entropy_score(logits, labels)
    return torch.where(error.isinf(), error, error.clamp(max=-math.log(1e-8)))


def agm_ratio(errors: Float[Tensor, "m"], *, present: Bool[Tensor, "m"]) -> Float[Tensor, "m"]:
    """exp(mean of the others' errors − own): above 1 for a modality that is ahead, 1 for one that is alone."""
    expect_floating("errors", errors, "of shape (m,)", ndim=1)
    expect_presence(present, errors)
    count = present.sum() - 1
    others = (errors.where(present, 0).sum() - errors) / count.clamp(min=1)
    return torch.where(present & (count > 0), (others - errors).exp(), 1)


class AgainstRunningMean(nn.Module):
    """The ratio 1 + r − τ: how much further ahead a modality is than usual; 1 where it is as ever.

    In training the errors of a call join the running means first. Every step counts alike, for the modalities that are
    there; a step that is not finite does not count.
    """

    total: Tensor
    steps: Tensor

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(modalities))
        self.register_buffer("steps", torch.zeros(modalities, dtype=torch.long))

    def forward(self, errors: Float[Tensor, "m"], *, present: Bool[Tensor, "m"]) -> Float[Tensor, "m"]:
        """Return 1 + r − τ."""
        expect(errors.shape == self.total.shape, "logits", f"{len(self.total)} modalities", errors)
        if self.training:
            counts = present & errors.isfinite().all()
            self.total += errors.where(counts, 0)
            self.steps += counts
        usual = agm_ratio(self.total / self.steps.clamp(min=1), present=present & (self.steps > 0))
        return 1 + agm_ratio(errors, present=present) - usual


def agm_coefficient(ratio: Float[Tensor, "m"], alpha: float, *, cap: float = 10.0) -> Float[Tensor, "m"]:
    """exp(α min(τ − r, cap)) of the ratio 1 + r − τ: below 1 while a modality is further ahead than usual."""
    expect_table("ratio", ratio)
    expect_number("alpha", alpha, low=0.0)
    expect_number("cap", cap, low=0.0)
    return (alpha * (1 - ratio).clamp(max=cap)).exp()


class AGM(Modulation):
    """Adaptive gradient modulation: (Shapley logits, labels) → a coefficient > 0 for each modality.

    Logits are :func:`shapley_logits`, and the paper scales the gradient of *them*: ``modulate(logits, k, loss)``, which
    also scales what goes through the runs with zeros. They come in one order, and from all modalities: one that is
    missing is said by `present`.

    Args:
        modalities: how many.
        alpha: 1.0; 1.5 on CREMA-D.
        cap: of τ − r; 10, and 7 for three modalities.

    Example:
        >>> agm, labels = AGM(2), torch.tensor([1])
        >>> ahead = {"audio": torch.tensor([[0.0, 3.0]]), "video": torch.zeros(1, 2)}
        >>> agm(ahead, labels), agm({"audio": torch.zeros(1, 2), "video": torch.zeros(1, 2)}, labels)
        ({'audio': tensor(1.), 'video': tensor(1.)}, {'audio': tensor(1.4627), 'video': tensor(0.7592)})

    Method:
        Name: AGM
        Paper: Li et al., ICCV 2023, arXiv 2308.07686
        Equation: Shapley logits and their modulation
        Hook: logits' gradients
        Cost: 2^M − 2 more runs of the head
        Modalities: any
        Test: tests/oracles/test_modulation.py
    """

    def __init__(self, modalities: int, alpha: float = 1.0, *, cap: float = 10.0) -> None:
        expect_count("modalities", modalities)
        expect_number("alpha", alpha, low=0.0)
        expect_number("cap", cap, low=0.0)
        ratio = AgainstRunningMean(modalities)
        super().__init__(clamped_cross_entropy, ratio, partial(agm_coefficient, alpha=alpha, cap=cap))
