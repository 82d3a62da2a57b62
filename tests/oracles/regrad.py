"""ReGrad, re-derived literally from MMDG (arXiv 2402.19298): Eq. 5 for two modalities, and its n-modal rule.

Vectors in, vectors out; loops over modalities; nothing is expressed through Gram matrices.
"""

import torch
from torch import Tensor

from tests.oracles import engine


def eq5(g_i: Tensor, g_j: Tensor, u_i: float, u_j: float, *, j_is_faster: bool) -> Tensor:
    """The four cases of Eq. 5, one line each."""
    dot = torch.dot(g_i, g_j)
    if j_is_faster:
        if dot > 0:
            return g_i + (dot / torch.dot(g_i, g_i)) * g_i * u_j
        return g_i + (g_j - (dot / torch.dot(g_i, g_i)) * g_i) * u_j
    if dot > 0:
        return (dot / torch.dot(g_j, g_j)) * g_j * u_i + g_j
    return (g_i - (dot / torch.dot(g_j, g_j)) * g_j) * u_i + g_j


def regulated(base: Tensor, other: Tensor) -> Tensor:
    """R(base <- other): the projection of `other` on `base` if they agree, the rejection otherwise."""
    dot, square = torch.dot(base, other), torch.dot(base, base)
    along = torch.zeros_like(base) if square == 0 else (dot / square) * base
    return along if dot > 0 else other - along


def corrected(rows: list[Tensor], confidence: list[float], branch: int, fast: set[int]) -> Tensor:
    """Δ of one branch's tensor, from the gradients of all modalities' losses on that tensor."""
    others = [k for k in range(len(rows)) if k != branch]
    if branch in fast:
        s = sum((rows[k] for k in others), torch.zeros_like(rows[branch]))
        return confidence[branch] * regulated(s, rows[branch]) + s
    out = rows[branch].clone()
    for k in others:
        out = out + confidence[k] * regulated(rows[branch], rows[k])
    return out


def step(
    total: Tensor | None,
    losses: dict[str, Tensor],
    branches: dict[str, list[Tensor]],
    others: list[Tensor],
    *,
    confidence: dict[str, float],
    speed: dict[str, float],
    weight: float,
    per: str,
    rest: str,
) -> dict[Tensor, Tensor]:
    """The gradient of every tensor by one backward pass per loss, then the rule, granule by granule."""
    names = list(branches)
    every = [t for tensors in branches.values() for t in tensors] + others
    rows = engine.rows_of(total, losses, names, every, weight)
    rule = regrad(names, losses, confidence, speed)
    return engine.step(rows, branches, others, rule, uses_total=False, per=per, rest=rest)


def regrad(
    names: list[str], losses: dict[str, Tensor], confidence: dict[str, float], speed: dict[str, float]
) -> engine.VectorRule:
    """The rule of one step; the row of an absent modality is zero, and its branch is never fast."""
    fastest = max(speed[name] for name in losses)
    fast = {k for k, name in enumerate(names) if name in losses and speed[name] == fastest}
    u = [confidence.get(name, 1.0) for name in names]
    return lambda rows, branch: corrected(rows, u, branch, fast)
