"""Gradient surgery, literally: one backward pass per loss, then a rule on vectors, granule by granule.

Loops over losses, branches and granules; nothing is seeded, stacked, shared or left out, and there is no Gram matrix.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Rows = list[dict[Tensor, Tensor]]  # row 0 the total's, row 1 + m that of modality m; zeros where nothing arrives
VectorRule = Callable[[list[Tensor], int], Tensor]  # the rows of a granule and its branch in, one gradient out


def rows_of(
    total: Tensor | None, losses: Mapping[str, Tensor], names: list[str], tensors: list[Tensor], weight: float
) -> Rows:
    """The gradient of the total, and `weight` times that of each modality's loss, on every tensor."""

    def row(loss: Tensor | None) -> dict[Tensor, Tensor]:
        if loss is None:
            return {tensor: torch.zeros_like(tensor) for tensor in tensors}
        found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
        return {t: torch.zeros_like(t) if g is None else g.clone() for t, g in zip(tensors, found, strict=True)}

    return [row(total), *(row(weight * losses[name] if name in losses else None) for name in names)]


def step(
    rows: Rows,
    branches: Mapping[str, list[Tensor]],
    others: list[Tensor],
    rule: VectorRule,
    *,
    uses_total: bool,
    per: str,
    rest: str,
) -> dict[Tensor, Tensor]:
    """The gradient of every tensor. A rule that does not use the total sees the modalities' rows alone."""
    result = {t: rows[0][t] if rest == "total" else sum(row[t] for row in rows) for t in others}
    for branch, tensors in enumerate(branches.values()):
        for granule in granules(branches, tensors, per):
            vectors = [torch.cat([row[t].reshape(-1) for t in granule]) for row in rows]
            due = rule(vectors, branch) if uses_total else vectors[0] + rule(vectors[1:], branch)
            for tensor, part in zip(granule, due.split([t.numel() for t in granule]), strict=True):
                if any(tensor is own for own in tensors):
                    result[tensor] = part.reshape(tensor.shape)
    return result


def granules(branches: Mapping[str, list[Tensor]], tensors: list[Tensor], per: str) -> list[list[Tensor]]:
    """The granules that decide over `tensors` of one branch; per="model": all tensors of all branches."""
    if per == "tensor":
        return [[tensor] for tensor in tensors]
    granule = tensors if per == "branch" else [tensor for each in branches.values() for tensor in each]
    return [granule] if tensors else []


def largest(rows: Rows, branches: Mapping[str, list[Tensor]], others: list[Tensor], per: str) -> dict[Tensor, float]:
    """For every tensor the largest entry that any row has in its granule: what rounding errors are measured by."""
    every = [[[tensor] for tensor in others], *(granules(branches, tensors, per) for tensors in branches.values())]
    sizes = {}
    for granule in (granule for some in every for granule in some):
        entries = torch.cat([row[t].reshape(-1) for row in rows for t in granule])
        sizes.update(dict.fromkeys(granule, entries.abs().max().item()))
    return sizes
