"""ReGrad in one of its two cases only, for the ablation: elsewhere the gradients of the modalities are added up.

In the notation of ``balancekit.surgery``'s ReGrad, with R the regulated part of Eq. 5 (arXiv 2402.19298):

    b slow:   Δ_b = g_b + Σ_{k≠b} (u_k R(g_b ← g_k)  where the pair is in the case, else g_k)
    b fast:   Δ_b = s + (u_b R(s ← g_b)  where the pair is in the case, else g_b),        s = Σ_{k≠b} g_k
"""

import torch
from torch import Tensor

from balancekit import ReGrad
from balancekit.surgery import Step


class OnlyWhere:
    """ReGrad where gradients are in "conflict", or where they are "aligned"."""

    uses_total = False

    def __init__(self, case: str) -> None:
        if case not in ("conflict", "aligned"):
            raise ValueError(f"case: expected 'conflict' or 'aligned', found {case!r}")
        self.case = case

    def __call__(self, gram: Tensor, step: Step) -> Tensor:
        """Weights "g r" of the rows; the total's row gets 1."""
        weights, g = ReGrad()(gram, step)[:, 1:], gram[:, 1:, 1:]
        own = step.owner[:, None] == torch.arange(g.shape[-1], device=g.device)
        fast = (step.present & (step.speed == step.speed.where(step.present, -torch.inf).max()))[step.owner][:, None]
        u, there = step.confidence.to(g.dtype), step.present.to(g.dtype)
        dots = (own[:, :, None] * g).sum(1)  # <g_b, g_k>
        square = (own * dots).sum(1, keepdim=True)
        aligned = (dots > 0) & (square > 0)
        outside = ~own & (~aligned if self.case == "aligned" else aligned)  # pairs to which ReGrad is not applied

        # a slow branch: undo what those pairs put on its own row, and count them whole
        part = torch.where(square > 0, u * dots.abs() / square.clamp(min=torch.finfo(g.dtype).tiny), 0)
        undone = (outside * part).sum(1, keepdim=True)  # u <g_b, g_k>/|g_b|² with a sign that makes it positive
        slow = torch.where(outside, there, weights - own * undone)

        # a fast branch: one pair, itself against the sum of the others
        together = (~own * dots).sum(1, keepdim=True) > 0
        apply = together if self.case == "aligned" else ~together
        quick = torch.where(apply, weights, there)
        return torch.cat([torch.ones_like(weights[:, :1]), torch.where(fast, quick, slow)], 1)

    def __repr__(self) -> str:
        return f"OnlyWhere({self.case!r})"
