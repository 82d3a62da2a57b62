"""ReGrad: keep the slow modality whole, and of the fast one only what does not slow the slow one.

Lin et al., "Suppress and Rebalance", CVPR 2024 (arXiv 2402.19298), Eq. 5, and its n-modal rule. On a tensor of b, with
g_k the gradient of modality k's loss on it, u_k the confidence of modality k and

    R(a <- g) = (<a, g> / |a|²) a        if <a, g> > 0     (aligned: the projection)
                g - (<a, g> / |a|²) a    otherwise         (conflicted: the rejection)

    b slow:   Δ_b = g_b + Σ_{k≠b} u_k R(g_b <- g_k)
    b fast:   Δ_b = s + u_b R(s <- g_b),                   s = Σ_{k≠b} g_k

For two modalities both lines give the same vector, which is Eq. 5. Both are combinations of the g_k, with weights that
only depend on their inner products G_jk = <g_j, g_k>:

    b slow:   a_b = 1 ± Σ_{k≠b} u_k G_bk / G_bb,           a_k = u_k where k conflicts with b, else 0
    b fast:   a_b = u_b if b conflicts with s, else 0,     a_k = 1 ± u_b <g_b, s> / |s|²

with + for aligned and - for conflicted pairs.
"""

import torch
from torch import Tensor

from balancekit._checks import expect_number
from balancekit._typing import Bool, Float, Int
from balancekit.surgery._rule import Step


def regrad_weights(
    gram: Float[Tensor, "g m m"],
    confidence: Float[Tensor, "m"],
    fast: Bool[Tensor, "m"],
    owner: Int[Tensor, "g"],
    margin: float = 0.0,
) -> Float[Tensor, "g m"]:
    """Weights of the modality rows: Δ of granule g is ``Σ_m weights[g, m] · g_m``.

    Args:
        gram: inner products of the modalities' gradients on each granule. The row of an absent modality is zero.
        confidence: u, one value per modality.
        fast: which modalities are fast. All that tie for fastest are.
        owner: the branch of each granule.
        margin: two gradients are aligned if their cosine exceeds it.
    """
    own = (owner.unsqueeze(-1) == torch.arange(gram.shape[-1], device=gram.device)).to(gram.dtype)
    others = 1 - own
    u = confidence.to(gram.dtype)
    squares = gram.diagonal(dim1=-2, dim2=-1)
    dots = (own.unsqueeze(-1) * gram).sum(-2)
    square = (own * squares).sum(-1, keepdim=True)

    aligned = _aligned(dots, square, squares, margin)
    ratio = others * u * _ratio(dots, square)
    slow_own = 1 + torch.where(aligned, ratio, -ratio).sum(-1, keepdim=True)
    slow = own * slow_own + others * u * ~aligned

    dot = _exact_sum(others * dots)
    norm = _exact_sum((others.unsqueeze(-1) * gram * others.unsqueeze(-2)).flatten(1))
    u_own = (own * u).sum(-1, keepdim=True)
    aligned_s = _aligned(dot, norm, square, margin)
    ratio_s = u_own * _ratio(dot, norm)
    quick = own * u_own * ~aligned_s + others * (1 + torch.where(aligned_s, ratio_s, -ratio_s))

    return torch.where(fast[owner].unsqueeze(-1), quick, slow)


def _exact_sum(terms: Tensor) -> Tensor:
    """Sum over the last axis, 0 where it is below its own rounding error: terms that cancel must not leave a sign."""
    total, noise = terms.sum(-1, keepdim=True), terms.abs().sum(-1, keepdim=True)
    return torch.where(total.abs() > terms.shape[-1] * torch.finfo(terms.dtype).eps * noise, total, 0)


def _aligned(dot: Tensor, a: Tensor, b: Tensor, margin: float) -> Tensor:
    """Whether b, with inner product `dot` and square norm `b`, has a projection on a, with square norm `a`."""
    agree = dot > margin * (a.sqrt() * b.sqrt()) if margin else dot > 0
    return agree & (a > 0)  # nothing can be projected on a zero vector


def _ratio(dot: Tensor, square: Tensor) -> Tensor:
    """Dot over square; 0 for a zero vector."""
    return torch.where(square > 0, dot / torch.where(square > 0, square, 1), 0)


class ReGrad:
    """The rule of MMDG: protect slow modalities from fast ones.

    Only the gradients of the modalities' own losses are changed; the total's gradient passes untouched. A modality is
    fast if no present one has a higher speed; all that tie are fast. A zero inner product counts as a conflict.

    Properties to know: in a slow branch every other modality is treated as the fast one, even one that is slower still;
    where two gradients agree the part of the fast one across the slow one is *dropped*; and the result jumps where
    their cosine crosses 0, which in high dimension it does by chance. `margin` moves that border away from 0: with a
    margin above the noise, near-orthogonal gradients count as conflicted, so both are kept.

    Args:
        margin: in [0, 1): two gradients are aligned if their cosine exceeds it. The paper has 0.

    Example:
        Two modalities, gradients (1, 0) and (1, 1), the second is faster and has confidence 0.5: Eq. 5 (b1) gives
        (1, 0) + 0.5 · (1, 0).

        >>> gradients = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])  # row 0 is the total's
        >>> step = Step(
        ...     losses=torch.tensor([0.9, 0.2]),
        ...     confidence=torch.tensor([1.0, 0.5]),
        ...     speed=torch.tensor([-0.9, -0.2]),
        ...     present=torch.tensor([True, True]),
        ...     owner=torch.tensor([0]),
        ...     units=torch.ones(1),
        ... )
        >>> weights = ReGrad()((gradients @ gradients.T)[None], step)
        >>> weights[0] @ gradients
        tensor([1.5000, 0.0000])

    Method:
        Name: ReGrad
        Paper: Lin et al., CVPR 2024, arXiv 2402.19298
        Equation: 5
        Hook: backward
        Cost: up to M more passes where losses meet
        Modalities: any; one against the rest
        Test: tests/oracles/test_regrad.py
    """

    uses_total = False

    def __init__(self, *, margin: float = 0.0) -> None:
        expect_number("margin", margin, low=0.0, high=1.0, high_open=True)
        self.margin = margin

    def __call__(self, gram: Float[Tensor, "g r r"], step: Step) -> Float[Tensor, "g r"]:
        """Return the weights; the total's row gets 1."""
        faster = (step.speed > step.speed.unsqueeze(-1)) & step.present
        fast = step.present & ~faster.any(-1)
        weights = regrad_weights(gram[:, 1:, 1:], step.confidence, fast, step.owner, self.margin)
        weights = weights.masked_fill((step.speed.isnan() & ~step.losses.isnan()).any(), torch.nan)  # of no bad loss
        return torch.cat([torch.ones_like(weights[:, :1]), weights * step.present], dim=-1)

    def __repr__(self) -> str:
        return f"ReGrad(margin={self.margin})"
