"""PMR's coefficients: speed the slow modality up, hold the fast one back, for any number of modalities.

PMR (Fan et al. 2023, arXiv 2211.07089), Eq. 11 and 13, in a form that equals them for two modalities:

    pce_m = clip(max(s) / s_m − 1, 0, 1)         0 for the best modality, grows as m falls behind it
    per_m = clip(s_m / min(s) − 1, 0, 1)         0 for the worst modality, grows as m runs ahead of it
    loss  = cross-entropy + α Σ_m pce_m PCE_m − μ Σ_m per_m H_m
"""

import torch
from torch import Tensor

from balancekit._checks import expect, expect_floating
from balancekit._precision import widen
from balancekit._typing import Float


def pmr_weights(scores: Float[Tensor, "m"], *, released: bool = False) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
    """Weights of the prototypical cross-entropy and of the entropy regulariser, from one score a modality.

    The first weighs PCE, which is **added** for the slow modalities (α is 1 to 2 in PMR). The second weighs the
    prototype entropy H, which is **subtracted** for the fast ones, in the first epochs only (μ is 1e-2 or 1e-3).
    In PMR's letters, with modality 0 first: ``pce`` is (β, γ), and ``per`` is (γ, β).

    Only ratios matter. Where a score is 0 its ratio is the limit: behind a positive best it gets ``pce`` 1, and above
    it every positive score gets ``per`` 1. Equal scores, zeros included, give 0.

    Args:
        scores: s_m ≥ 0, higher is faster: the softmax of the prototype logits at the true class, summed over the
            batch (Eq. 8). Its bank must have seen a class by then, as nothing has a softmax before.
        released: the switch of the released code instead of Eq. 11: 1 for every modality behind the best, however
            little, and no entropy term.

    Returns:
        Two detached vectors in [0, 1], in float32 or wider; a NaN among the scores makes NaN of every weight.

    Example:
        >>> from balancekit.prototypes import prototype_logits
        >>> prototypes, labels = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1])
        >>> features = {"audio": prototypes.clone(), "video": torch.ones(2, 2)}
        >>> p = {m: prototype_logits(f, prototypes).softmax(-1) for m, f in features.items()}
        >>> scores = torch.stack([p[m].gather(1, labels[:, None]).sum() for m in features])
        >>> pce, per = pmr_weights(scores)
        >>> pce.round(decimals=3), per.round(decimals=3)  # audio is fast, video slow
        (tensor([0.0000, 0.6090]), tensor([0.6090, 0.0000]))

    Method:
        Name: PMR, coefficients
        Paper: Fan et al., CVPR 2023, arXiv 2211.07089
        Equation: 11 and 13
        Hook: loss weights
        Cost: none
        Modalities: any; best and worst
        Test: tests/oracles/test_pmr.py
    """
    expect_floating("scores", scores, "of shape (m,)", ndim=1)
    expect(scores.numel() > 0, "scores", "at least one modality", scores)
    scores = widen(scores.detach())
    best, worst = scores.max(), scores.min()
    if released:
        behind = (scores < best).to(scores.dtype).masked_fill(best.isnan(), torch.nan)
        return behind, torch.zeros_like(scores)
    pce = torch.where(scores == best, 0, (best / scores - 1).clamp(0, 1))
    per = torch.where(scores == worst, 0, (scores / worst - 1).clamp(0, 1))
    return pce, per
