"""Classification by distance to class prototypes, its cross-entropy and its entropy.

MMDG (Lin et al. 2024, arXiv 2402.19298), Eq. 7; PMR (Fan et al. 2023, arXiv 2211.07089), Eq. 7, 10 and 13:

    logits = −distance(features, prototypes)          Euclidean, not squared
    p      = softmax(logits) over the seen classes
    PCE    = mean of −log p[label]                    over the samples of seen classes
    PER    = mean of −Σ_c p_c log p_c

Distances are computed in float32 or wider, without the matrix-product form, so that the distance to a coincident
prototype is exactly 0 and its gradient is 0 as well (the product form leaves 0.011 at 768 dimensions; a plain square
root has the gradient NaN). Masks multiply by 0 or 1 and never replace a value, so a non-finite feature makes the loss
non-finite, also where its sample weighs nothing.
"""

from typing import Literal

import torch
from torch import Tensor

from balancekit._checks import expect, expect_choice, expect_device, expect_floating, expect_labels, expect_shape
from balancekit._typing import Bool, Float, Int


def prototype_logits(
    features: Float[Tensor, "b d"], prototypes: Float[Tensor, "c d"], *, seen: Bool[Tensor, "c"] | None = None
) -> Float[Tensor, "b c"]:
    """Minus the Euclidean distance to each prototype, and −inf for classes never seen.

    ``softmax`` of the result is PMR's p (Eq. 7), and its entry at the true class, summed over a batch, is the score
    s that PMR compares between modalities (Eq. 8).

    Args:
        features: one row a sample; gradients flow to them.
        prototypes: one row a class; gradients flow to them as well where they ask for it.
        seen: which rows of `prototypes` stand for something; None for all of them.

    Returns:
        Logits in float32, or wider where an input is.

    Example:
        >>> prototypes = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
        >>> prototype_logits(torch.zeros(1, 2), prototypes, seen=torch.tensor([True, True, False]))
        tensor([[-0., -5., -inf]])
    """
    logits, seen = _all_logits(features, prototypes, seen)
    return torch.where(seen, logits, -torch.inf)


def prototypical_cross_entropy(
    features: Float[Tensor, "b d"],
    labels: Int[Tensor, "b"],
    prototypes: Float[Tensor, "c d"],
    *,
    seen: Bool[Tensor, "c"] | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Float[Tensor, "..."]:
    """Cross-entropy of the classification by distance: PMR's PCE, and MMDG's SSP with single-side labels.

    A class never seen is out of the denominator, and a sample of such a class has weight 0; where no weight is left
    the loss is 0, still connected to `features`.

    Args:
        features: as for :func:`prototype_logits`.
        labels: class of each sample.
        prototypes: as for :func:`prototype_logits`; usually ``bank.prototypes``.
        seen: as for :func:`prototype_logits`; usually ``bank.seen``.
        reduction: "mean" over the samples of seen classes, "sum", or "none" for one value a sample.

    Returns:
        A scalar, or "b" with ``reduction="none"``.

    Example:
        >>> prototypes = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> loss = prototypical_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), prototypes)
        >>> round(loss.item(), 6)  # log(1 + e⁻⁵)
        0.006715

    Method:
        Name: PCE, SSP
        Paper: arXiv 2211.07089 and 2402.19298
        Equation: 10 and 7
        Hook: loss
        Cost: none
        Modalities: any
        Test: tests/oracles/test_prototypes.py
    """
    expect_choice("reduction", reduction, ("mean", "sum", "none"))
    logits, seen = _all_logits(features, prototypes, seen)
    expect_labels("labels", labels, features.shape[0], prototypes.shape[0])
    expect_device("labels", labels, features)
    index = labels.long()
    among, logits = _shifted(logits, seen)
    cross_entropy = among.logsumexp(-1) - logits.gather(-1, index[:, None]).squeeze(-1)
    return _reduced(cross_entropy, seen[index], reduction)


def prototype_entropy(
    features: Float[Tensor, "b d"],
    prototypes: Float[Tensor, "c d"],
    *,
    seen: Bool[Tensor, "c"] | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Float[Tensor, "..."]:
    """Entropy in nats of the classification by distance: PMR's PER, which **subtracts** it from the loss (Eq. 13).

    It lies between 0 and the logarithm of the number of seen classes, and is 0, still connected, where none is seen.

    Args:
        features: as for :func:`prototype_logits`.
        prototypes: as for :func:`prototype_logits`.
        seen: as for :func:`prototype_logits`.
        reduction: "mean", "sum", or "none" for one value a sample.

    Returns:
        A scalar, or "b" with ``reduction="none"``.

    Example:
        >>> prototypes = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> round(prototype_entropy(torch.zeros(1, 2), prototypes).item(), 6)  # two classes, equally far: log 2
        0.693147

    Method:
        Name: PER
        Paper: Fan et al., CVPR 2023, arXiv 2211.07089
        Equation: 13
        Hook: loss
        Cost: none
        Modalities: any
        Test: tests/oracles/test_prototypes.py
    """
    expect_choice("reduction", reduction, ("mean", "sum", "none"))
    logits, seen = _all_logits(features, prototypes, seen)
    among, logits = _shifted(logits, seen)
    log_p = logits - among.logsumexp(-1, keepdim=True)
    entropy = -(among.softmax(-1) * log_p).sum(-1)
    return _reduced(entropy, seen.any().expand(features.shape[0]), reduction)


def _all_logits(features: Tensor, prototypes: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Minus the distance to every prototype, the unseen ones included and finite, and `seen` with its default."""
    expect_floating("features", features, "of shape (b, d)", ndim=2)
    expect_floating("prototypes", prototypes, f"of shape (c, {features.shape[1]})", ndim=2)
    classes = prototypes.shape[0]
    expect(classes > 0, "prototypes", "at least one class", prototypes)
    expect_shape("prototypes", prototypes, (classes, features.shape[1]))
    expect_device("prototypes", prototypes, features)
    if seen is None:
        seen = torch.ones(classes, dtype=torch.bool, device=prototypes.device)
    expected = f"a bool tensor of shape ({classes},)"
    expect(isinstance(seen, Tensor) and seen.dtype == torch.bool, "seen", expected, seen, error=TypeError)
    expect_shape("seen", seen, (classes,))
    expect_device("seen", seen, features)
    wide = torch.promote_types(torch.promote_types(features.dtype, prototypes.dtype), torch.float32)
    centers = torch.where(seen[:, None], prototypes.to(wide), 0)  # whatever an unseen row holds
    distance = torch.cdist(features.to(wide), centers, compute_mode="donot_use_mm_for_euclid_dist")
    return -distance, seen


def _among(logits: Tensor, seen: Tensor) -> Tensor:
    """Logits with −inf for unseen classes; where none is seen all stay, as a row of −inf has no softmax."""
    return torch.where(seen | ~seen.any(), logits, -torch.inf)


def _shifted(logits: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """The seen logits and all of them, less the largest seen one: small differences of large distances keep digits."""
    among = _among(logits, seen)
    largest = among.amax(-1, keepdim=True).detach()
    return among - largest, logits - largest


def _reduced(values: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """Reduce over the samples that count; 0 where none does."""
    values = values * weight
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.sum() / weight.sum().clamp(min=1)
