"""Whole training steps without this library's engine: plain, bare passes, and what others do on the same losses.

Every procedure takes a :class:`Problem` and returns a function that runs forward and backward and leaves ``.grad``
behind. `released` and `matrix` apply ReGrad per tensor, and leave what ``Rebalancer(branches, ReGrad())`` leaves.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from balancekit import ReGrad, Step

from .problem import Problem

Run = Callable[[], None]


def plain(problem: Problem) -> Run:
    """One backward of the sum of all losses."""

    def step() -> None:
        total, losses = problem.losses()
        (total + sum(losses.values())).backward()

    return step


def bare_passes(problem: Problem) -> Run:
    """M + 1 passes through the graph and nothing else: the floor where every branch meets every other."""
    owned = problem.owned()

    def step() -> None:
        total, losses = problem.losses()
        for loss in losses.values():
            torch.autograd.grad(loss, owned, retain_graph=True, allow_unused=True)
        total.backward()

    return step


def regulated(base: Tensor, other: Tensor) -> Tensor:
    """The projection of `other` on `base` if they agree, the rejection otherwise. The host waits for the answer."""
    dot, square = torch.dot(base, other), torch.dot(base, base)
    along = dot / square.clamp(min=torch.finfo(base.dtype).tiny) * base
    return along if dot > 0 else other - along


def released(problem: Problem) -> Run:
    """ReGrad as MMDG released it, from its equations: a loop over the tensors that rewrites ``.grad``.

    One pass a modality over all trained tensors, one for the total, then for each tensor of branch b, with s the sum of
    the other rows: Δ = g_b + Σ_k u_k R(g_b <- g_k) in a slow branch, Δ = s + u_b R(s <- g_b) in a fast one. Mended: a
    missing gradient counts as zero, and no constant is added to |g|².
    """
    trained, owners, u = problem.trained(), problem.branches.owners(), problem.confidence

    def step() -> None:
        total, losses = problem.losses()
        passes = (torch.autograd.grad(x, trained, retain_graph=True, allow_unused=True) for x in losses.values())
        rows = dict(zip(losses, passes, strict=True))
        total.backward()
        lowest = min(losses.values())
        fast = {name for name, loss in losses.items() if loss == lowest}
        for i, p in enumerate(trained):
            found = {n: torch.zeros_like(p) if row[i] is None else row[i] for n, row in rows.items()}
            g = {n: gradient.flatten() for n, gradient in found.items()}
            b = owners.get(p)
            if b is None:
                delta = sum(g.values())
            elif b in fast:
                s = sum(g[k] for k in g if k != b)
                delta = s + u[b] * regulated(s, g[b])
            else:
                delta = g[b] + sum(u[k] * regulated(g[b], g[k]) for k in g if k != b)
            p.grad = delta.view_as(p) if p.grad is None else p.grad + delta.view_as(p)

    return step


def matrix(problem: Problem) -> Run:
    """A multi-task trainer in the manner of LibMTL: a matrix of all losses by all parameters, weighted, written back.

    One backward a loss, each copied to its row; the weights are ReGrad's, from the columns of each tensor.
    """
    trained, owners, rule = problem.trained(), problem.branches.owners(), ReGrad()
    names = list(problem.branches)
    sizes = [p.numel() for p in trained]
    owner = torch.tensor([names.index(owners[p]) if p in owners else -1 for p in trained], device=trained[0].device)

    def step() -> None:
        total, losses = problem.losses()
        rows = [total, *(losses[name] for name in names)]
        gradients = torch.zeros(len(rows), sum(sizes), dtype=total.dtype, device=total.device)
        for r, loss in enumerate(rows):
            loss.backward(retain_graph=r + 1 < len(rows))
            for p, slot in zip(trained, gradients[r].split(sizes), strict=True):
                if p.grad is not None:
                    slot.copy_(p.grad.flatten())
                    p.grad = None
        columns = gradients.split(sizes, dim=1)
        gram = torch.stack([column @ column.T for column in columns])
        values = torch.stack(rows[1:]).detach()
        u = values.new_tensor([problem.confidence[name] for name in names])
        facts = Step(values, u, -values, values == values, owner.clamp(min=0), gram.new_ones(len(gram)))
        weights = torch.where(owner[:, None] < 0, 1, rule(gram, facts))
        combined = torch.cat([w @ column for w, column in zip(weights, columns, strict=True)])
        for p, gradient in zip(trained, combined.split(sizes), strict=True):
            p.grad = gradient.view_as(p)

    return step


def torchjd(problem: Problem, *, sequential: bool) -> Run:
    """TorchJD's Jacobian descent on all losses, as its documentation shows it: another rule, the same passes.

    Args:
        problem: what to run.
        sequential: one row after another and the Gram matrix tensor by tensor; otherwise TorchJD's defaults, which
            differentiate all losses at once by ``torch.vmap`` and concatenate the Jacobian.
    """
    from torchjd.autojac import backward, jac_to_grad

    trained, aggregator, chunk = problem.trained(), _aggregator(), 1 if sequential else None

    def step() -> None:
        total, losses = problem.losses()
        backward([total, *losses.values()], parallel_chunk_size=chunk)
        reached = [p for p in trained if getattr(p, "jac", None) is not None]
        jac_to_grad(reached, aggregator, optimize_gramian_computation=sequential)

    return step


def _aggregator() -> Any:
    """UPGrad where its solver is installed, or MGDA."""
    from torchjd.aggregation import MGDA, UPGrad

    try:
        import qpsolvers  # noqa: F401
        import quadprog  # noqa: F401
    except ImportError:
        return MGDA()
    return UPGrad()
