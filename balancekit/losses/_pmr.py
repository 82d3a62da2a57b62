"""PMR's two terms: prototypes speed the slow modality up, and their entropy holds the fast one back.

Fan et al. 2023 (arXiv 2211.07089), Eq. 10, 11 and 13, with s_m the softmax of the prototype logits at the true class:

    α Σ_m pce_m PCE_m − μ Σ_m per_m H_m,        pce, per = pmr_weights(s)

To be added to the cross-entropy of the fused head. Both act under every optimizer: a term changes the direction.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_device, expect_number, expect_shape
from balancekit._distributed import all_reduce_sum, expect_agreement
from balancekit._typing import Float, Int
from balancekit.losses._arguments import expect_modalities, expect_names
from balancekit.modulation import pmr_weights
from balancekit.prototypes import PrototypeBank, prototype_entropy, prototypical_cross_entropy


def pmr_loss(
    features: Mapping[str, Float[Tensor, "b _"]],
    labels: Int[Tensor, "b"],
    banks: Mapping[str, PrototypeBank] | nn.ModuleDict,
    *,
    alpha: float = 1.0,
    mu: float = 0.0,
    released: bool = False,
) -> Float[Tensor, ""]:
    """α Σ pce_m PCE_m − μ Σ per_m H_m of a batch; the banks are read, not changed.

    PMR fills the banks from a tenth of the training data, once an epoch: ``bank.accumulate(features, labels)`` for each
    batch of it, then ``bank.commit()``. Before the first time nothing is known, and the loss is 0. Several processes
    add up their scores, so all of them find the same weights; each must make the call.

    Args:
        features: z_m; gradients flow to them.
        labels: class of each sample.
        banks: prototypes of the same names.
        alpha: 1 to 2.
        mu: 1e-2 or 1e-3 in the first epochs, then 0.
        released: the released code, which has no entropy term and gives a slow modality the whole α.

    Returns:
        A scalar in float32, or wider where an input is.

    Example:
        >>> bank = {"audio": PrototypeBank(2, 1, decay=0.2), "video": PrototypeBank(2, 1, decay=0.2)}
        >>> centers, labels = torch.tensor([[-2.0], [2.0]]), torch.tensor([0, 1])
        >>> for each in bank.values():
        ...     each.update(centers, labels)
        >>> pmr_loss({"audio": centers, "video": centers / 4}, labels, bank)
        tensor(0.1075)

    Method:
        Name: PMR
        Paper: Fan et al., CVPR 2023, arXiv 2211.07089
        Equation: 10, 11 and 13
        Hook: loss
        Cost: a pass over a tenth of the data an epoch
        Modalities: any; best and worst
        Test: tests/oracles/test_pmr.py
    """
    expect_modalities("features", features, "of shape (b, d)", ndim=2)
    fits = isinstance(banks, Mapping | nn.ModuleDict)
    expect(fits, "banks", "a mapping from modalities to banks", banks, error=TypeError)
    held: dict[str, Any] = dict(banks.items())
    expect_names("banks", held, features)
    expect_number("alpha", alpha, low=0.0)
    expect_number("mu", mu, low=0.0)
    for name, z in features.items():
        bank = held[name]
        fits = hasattr(bank, "prototypes") and hasattr(bank, "seen")  # a compiled one is no PrototypeBank
        expect(fits, f"banks[{name!r}]", "a PrototypeBank", bank, error=TypeError)
        expect_shape(f"features[{name!r}]", z, (z.shape[0], bank.prototypes.shape[1]))
        expect_device(f"features[{name!r}]", z, bank.prototypes)
    scores, terms, entropies = [], [], []
    for name, z in features.items():
        bank = held[name]
        each = prototypical_cross_entropy(z, labels, bank.prototypes, seen=bank.seen, reduction="none")
        known = bank.seen[labels.long()]
        scores.append((each.detach().neg().exp() * known).sum())  # Eq. 8; a class never seen has probability 0
        terms.append(each.sum() / known.sum().clamp(min=1))
        entropies.append(prototype_entropy(z, bank.prototypes, seen=bank.seen))
    expect_agreement("features", tuple(features), scores[0].device)
    (score,) = all_reduce_sum([torch.stack(scores)])
    pce, per = pmr_weights(score, released=released)
    return alpha * (pce * torch.stack(terms)).sum() - mu * (per * torch.stack(entropies)).sum()
