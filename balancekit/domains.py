"""Domain generalisation after SSDG: genuine samples mix across domains, attacks keep apart.

Jia et al., "Single-Side Domain Generalization for Face Anti-Spoofing", CVPR 2020. Genuine samples of several domains
(data sets, sites, cameras) should look alike; attacks differ too much between domains for that to be asked of them.

==================================  ==================================================================================
``reverse_gradient``                between the features and a discriminator of domains: it learns to tell the domains
                                    apart, the encoder unlearns what it uses
``reversal_strength``               the schedule of that reversal, from 0 to 1
``single_side_adversarial_loss``    the discriminator's cross-entropy, over the genuine samples alone
``asymmetric_triplet_loss``         genuine in one cluster, the attacks of each domain in one of their own
``normalise_features``              unit features, and unit class weights for a head that sees angles alone
==================================  ==================================================================================

The sum that SSDG trains on, with domain weights λ of 0.1 to 0.5 and 1 to 2::

    strength = reversal_strength(step, total)
    logits = discriminator(reverse_gradient(features, strength))
    labels = torch.where(live, 0, 1 + domain)
    loss = cross_entropy + λ₁ * single_side_adversarial_loss(logits, domain, live)
                         + λ₂ * asymmetric_triplet_loss(normalise_features(features), labels)

Where a batch holds nothing to compare, both losses are 0 and still connected to their input. Non-finite inputs give
non-finite losses, also where their sample weighs nothing.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from balancekit._checks import expect, expect_device, expect_floating, expect_labels, expect_number
from balancekit._precision import widen
from balancekit._typing import Bool, Float, Int

__all__ = [
    "asymmetric_triplet_loss",
    "normalise_features",
    "reversal_strength",
    "reverse_gradient",
    "single_side_adversarial_loss",
]


class ReverseGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, strength: float | Tensor) -> Tensor:
        return x.clone()  # not a view, which an in-place activation behind it would not be allowed to change

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float | Tensor], output: Tensor) -> None:
        ctx.strength = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad * -ctx.strength, None


def reverse_gradient(x: Float[Tensor, "..."], strength: float | Float[Tensor, ""] = 1.0) -> Float[Tensor, "..."]:
    """Return `x` unchanged; on the way back multiply its gradient by −`strength`.

    Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", 2015 (arXiv 1409.7495).

    Args:
        x: features on their way to a discriminator.
        strength: a number of at least 0, or a scalar tensor; no gradient flows to it.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> reverse_gradient(x, 0.5).sum().backward()
        >>> x.grad
        tensor([-0.5000, -0.5000])
    """
    expect_floating("x", x, "of any shape")
    if isinstance(strength, Tensor):
        expect_floating("strength", strength, "of shape ()", ndim=0)
        if strength.device.type != "cpu":  # a scalar of the CPU goes with any device
            expect_device("strength", strength, x)
        strength = strength.detach()
    else:
        expect_number("strength", strength, low=0.0)
    return ReverseGradient.apply(x, strength)  # type: ignore[return-value]


def reversal_strength(step: int | float, total: int | float, *, k: float = 10.0) -> float:
    """2 / (1 + exp(−k · step / total)) − 1: from 0 at the start to nearly 1.

    Source: arXiv 1409.7495, with its k = 10. SSDG's code has the same k and a `total` of 4000 steps.

    Args:
        step: steps done so far.
        total: steps after which the argument reaches `k`; later steps saturate.
        k: steepness.

    Example:
        >>> [round(reversal_strength(step, 100), 4) for step in (0, 10, 50, 100)]
        [0.0, 0.4621, 0.9866, 0.9999]
    """
    expect_number("step", step, low=0.0)
    expect_number("total", total, low=0.0, low_open=True)
    expect_number("k", k, low=0.0)
    return math.tanh(k * step / total / 2)


def single_side_adversarial_loss(
    logits: Float[Tensor, "b c"], domain: Int[Tensor, "b"], live: Bool[Tensor, "b"]
) -> Float[Tensor, ""]:
    """Cross-entropy of a domain discriminator over the genuine samples alone (SSDG's L_Ada).

    Args:
        logits: the discriminator's, of features that passed :func:`reverse_gradient`; one class a domain.
        domain: domain of each sample.
        live: True for a genuine sample; the others have weight 0.

    Returns:
        The mean over the genuine samples; 0, connected to `logits`, where there are none.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [9.0, -9.0]])
        >>> loss = single_side_adversarial_loss(logits, torch.tensor([0, 1]), torch.tensor([True, False]))
        >>> round(loss.item(), 6)  # log 2: the attack in the second row is left out
        0.693147

    Method:
        Name: SSDG, adversarial
        Paper: Jia et al., CVPR 2020, arXiv 2004.14043
        Equation: single-side adversarial loss
        Hook: loss
        Cost: a discriminator
        Modalities: any
        Test: tests/oracles/test_domains.py
    """
    expect_floating("logits", logits, "of shape (b, c)", ndim=2)
    samples, domains = logits.shape
    expect_labels("domain", domain, samples, domains)
    expected = f"a bool tensor of shape ({samples},)"
    expect(isinstance(live, Tensor) and live.dtype == torch.bool, "live", expected, live, error=TypeError)
    expect(tuple(live.shape) == (samples,), "live", expected, live)
    expect_device("domain", domain, logits)
    expect_device("live", live, logits)
    wide = widen(logits)
    cross_entropy = F.cross_entropy(wide, domain.long(), reduction="none")
    return (cross_entropy * live).sum() / live.sum().clamp(min=1)


def asymmetric_triplet_loss(
    features: Float[Tensor, "b d"], labels: Int[Tensor, "b"], *, margin: float = 0.1, squared: bool = False
) -> Float[Tensor, ""]:
    """Triplet loss over all triplets of a batch: genuine in one cluster, each domain's attacks in another.

        mean over triplets with a positive value of max(0, D(a, p) − D(a, n) + margin),

    where p has the label of a, and n another. The default follows SSDG's code: Euclidean distance, margin 0.1.
    ``squared=True`` is the paper's form on squared distances; as printed it has no maximum, without which it is
    unbounded below.

    All b³ triplets are compared at once, in a few tensors of 4 MB each at 100 samples in float32, of 0.5 GB at 512.

    Args:
        features: one row a sample; SSDG normalises them first, see :func:`normalise_features`.
        labels: 0 for genuine samples, 1 + domain for attacks (``balancekit.prototypes.single_side_labels``).
        margin: distance by which the other cluster should be further away.
        squared: whether D is the squared distance.

    Returns:
        The mean; 0, connected to `features`, where no triplet is left.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [0.5]])
        >>> loss = asymmetric_triplet_loss(features, torch.tensor([0, 0, 1]))
        >>> round(loss.item(), 6)  # both genuine samples are 1 apart, and 0.5 from the attack
        0.6

    Method:
        Name: SSDG, triplet
        Paper: Jia et al., CVPR 2020, arXiv 2004.14043
        Equation: asymmetric triplet loss
        Hook: loss
        Cost: none
        Modalities: any
        Test: tests/oracles/test_domains.py
    """
    expect_floating("features", features, "of shape (b, d)", ndim=2)
    samples = features.shape[0]
    expect_labels("labels", labels, samples, torch.iinfo(torch.int32).max)
    expect_device("labels", labels, features)
    expect_number("margin", margin, low=0.0)
    wide = widen(features)
    distance = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist")  # gradient 0 at distance 0
    distance = distance.square() if squared else distance
    same = labels[:, None] == labels
    other = torch.eye(samples, dtype=torch.bool, device=labels.device).logical_not()
    triplet = (same & other)[:, :, None] & ~same[:, None, :]
    hinge = (distance[:, :, None] - distance[:, None, :] + margin).relu() * triplet
    return hinge.sum() / (hinge > 0).sum().clamp(min=1)


def normalise_features(x: Float[Tensor, "... d"], *, released: bool = False) -> Float[Tensor, "... d"]:
    """Divide each row by its length, as SSDG's paper does; a row of zeros stays zero.

    For SSDG's decision by angles normalise both sides, the weights a row for each class, and use no bias:
    ``F.linear(normalise_features(features), normalise_features(head.weight))``.

    Args:
        x: features "b d", or class weights "c d".
        released: divide by √(2‖x‖) instead, as SSDG's code does to features; the length becomes √(‖x‖/2), not 1.

    Returns:
        A tensor in the dtype of `x`; lengths are computed in float32 or wider, without overflow.

    Example:
        >>> normalise_features(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
        >>> normalise_features(torch.tensor([[0.0, 8.0]]), released=True)
        tensor([[0., 2.]])
    """
    expect_floating("x", x, "of shape (..., d)")
    expect(x.ndim > 0 and x.shape[-1] > 0, "x", "a floating-point tensor of shape (..., d), d at least 1", x)
    wide = widen(x)
    peak = wide.detach().abs().amax(-1, keepdim=True)
    peak = torch.where(peak == 0, 1, peak)  # a NaN stays
    length = torch.linalg.vector_norm(wide / peak, dim=-1, keepdim=True)  # in units of the peak: both may overflow
    length = torch.where(length == 0, 1, length)
    return (wide / torch.sqrt(2 * length) / peak.sqrt() if released else wide / peak / length).to(x.dtype)
