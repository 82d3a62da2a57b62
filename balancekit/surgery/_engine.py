"""What one backward does besides the user's own traversal: separate passes, and what comes of their rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from balancekit._distributed import all_reduce_sum, world_size
from balancekit._typing import Float
from balancekit.surgery._gram import on_device
from balancekit.surgery._passes import gradients
from balancekit.surgery._plan import Division, Part
from balancekit.surgery._rule import Rule, Step
from balancekit.surgery._weigh import Columns, Weighed, weigh_lone, weigh_measured


class Surgery(NamedTuple):
    """What happened in one step, all detached: what a step hook receives.

    Attributes:
        step: the facts that the rule saw.
        gram: the Gram matrices that it saw, in units of ``step.units``. Tensors that only their own loss reaches are
            never measured: they count as one granule a branch, whose Gram matrix holds a single 1.
        weights: what it returned.
        path: "general" (the tensors of the branches have separate passes), "collapse" (none has), or "partial".
    """

    step: Step
    gram: Float[Tensor, "g r r"]
    weights: Float[Tensor, "g r"]
    path: Literal["collapse", "partial", "general"]


class Plan(NamedTuple):
    """Everything about a call but its graph: what one backward needs to know."""

    rule: Rule
    step: Step
    division: Division
    factors: tuple[float, ...]  # of each row: 1 for the total, λ
    lone: Weighed  # the tensors that only their own loss reaches, one granule a branch that has such
    own: Float[Tensor, "r"]  # what they are due
    sigma: Float[Tensor, "r"]  # the factor with which the user's backward starts from each row
    ranks: Float[Tensor, "r"] | None  # how many ranks have each row, if rows are averaged over ranks
    share: Float[Tensor, "r"]  # the same as a part of all ranks; 1 if rows are not averaged
    shared_gram: bool  # per="model": all branches see the Gram matrix of all tensors
    known: Weighed | None  # one granule a branch, known before any pass
    proxy: Part | None  # tensors that are measured in place of all others
    shares: tuple[float, ...]  # for each leaf of the parts, on which part of the ranks it takes part; 0: not here
    kernel: Callable[..., tuple[Weighed | None, list[Tensor | None]]]  # _weigh.surgery, or the same compiled
    report: Callable[[Surgery, Weighed | None], None]  # the second: the measured granules, or those known before


def make_plan(
    rule: Rule, step: Step, division: Division, *, weight: float, ranks: Float[Tensor, "m"] | None, **fields: Any
) -> Plan:
    """Complete a plan: what lone tensors are due, and the factors with which the user's backward starts."""
    ones = torch.ones(len(division.seeds), dtype=step.losses.dtype, device=step.losses.device)
    share = ones
    if ranks is not None:
        ranks = torch.cat([ones[:1] * world_size(), ranks.clamp(min=1)])
        share = ranks / world_size()
    lone = weigh_lone(rule, step, division.alone)
    own = ones / share
    for m, weights in zip(division.alone, lone.weights.unbind(), strict=True):
        own[1 + m] *= weights[1 + m]
    choice = {"none": torch.zeros_like(ones), "one": ones, "own": own}
    sigma = torch.stack([choice[seed][r] for r, seed in enumerate(division.seeds)])
    factors = (1.0, *[weight] * len(step.losses))
    return Plan(rule, step, division, factors, lone=lone, own=own, sigma=sigma, ranks=ranks, share=share, **fields)


def operate(plan: Plan, roots: Mapping[int, Tensor], incoming: Tensor) -> list[Tensor | None]:
    """What separate passes add to the user's backward: a gradient for each leaf of each part.

    Args:
        plan: what to do.
        roots: the losses, by row.
        incoming: the gradient of the value that the call returned.
    """
    seeds = {r: incoming * plan.factors[r] for r in roots}
    known, found = plan.known, []
    if known is None and plan.proxy is not None:
        part = plan.proxy
        columns = _columns(plan, part, roots, seeds)
        known = weigh_measured(plan.rule, plan.step, part.owner, part.kind_of, columns, shared_gram=plan.shared_gram)
    beyond = torch.stack([plan.own, torch.ones_like(plan.own)]) - plan.sigma
    out: list[Tensor | None] = []
    for part in plan.division.parts:
        if known is not None:
            index = on_device([known.owner.index(branch) for branch in part.owner], incoming.device, torch.int64)
            due = torch.cat([known.weights[index] / plan.share - plan.sigma, beyond])
            out += _jointly(part, roots, seeds, due)
        else:
            columns, taken = _columns(plan, part, roots, seeds), plan.sigma * plan.share
            weighed, corrections = plan.kernel(
                plan.rule, plan.step, part.owner, part.kind_of, columns, taken, beyond, plan.shared_gram
            )
            out += corrections
            found += [weighed] if weighed is not None else []
    _report(plan, [known] if known is not None else found)
    return [
        each if each is None or share == 1 else each / share
        for each, share in zip(out, plan.shares, strict=True)
        if share
    ]


def _columns(plan: Plan, part: Part, roots: Mapping[int, Tensor], seeds: Mapping[int, Tensor]) -> Columns:
    """The rows of each tensor, by one pass per loss; those of shared tensors averaged over the ranks that have them."""
    columns: Columns = [[None] * len(plan.factors) for _ in part.leaves]
    for r, root in roots.items():
        index = [i for i, rows in enumerate(part.rows) if r in rows]
        for i, gradient in zip(index, gradients([root], [part.leaves[i] for i in index], [seeds[r]]), strict=True):
            columns[i][r] = gradient
    if plan.ranks is not None:
        shared = [i for i, kind in enumerate(part.kind_of) if kind < len(part.owner)]
        places = [(i, r) for i in shared for r in sorted(part.rows[i])]
        rows = [_filled(columns[i][r], part.leaves[i]) for i, r in places]
        for (i, r), summed in zip(places, all_reduce_sum(rows), strict=True):
            columns[i][r] = summed / plan.ranks[r]
    return columns


def _filled(row: Tensor | None, leaf: Tensor) -> Tensor:
    if row is None:
        return torch.zeros_like(leaf)
    return row.to_dense() if row.is_sparse else row


def _jointly(
    part: Part, roots: Mapping[int, Tensor], seeds: Mapping[int, Tensor], due: Float[Tensor, "k r"]
) -> list[Tensor | None]:
    """The gradients where all weights are known: one pass from all losses together, for each kind of tensors."""
    out: list[Tensor | None] = [None] * len(part.leaves)
    for kind in sorted(set(part.kind_of)):
        index = [i for i, each in enumerate(part.kind_of) if each == kind]
        rows = [r for r in roots if any(r in part.rows[i] for i in index)]
        started = [seeds[r] * due[kind, r] for r in rows]
        found = gradients([roots[r] for r in rows], [part.leaves[i] for i in index], started)
        for i, gradient in zip(index, found, strict=True):
            out[i] = gradient
    return out


def _report(plan: Plan, weighed: Sequence[Weighed]) -> None:
    measured = _joined(weighed) if weighed else None
    every = _joined([*weighed, plan.lone] if plan.lone.owner else weighed)
    step = plan.step._replace(owner=on_device(every.owner, every.gram.device), units=every.units)
    path = "collapse" if measured is None else "partial" if plan.lone.owner else "general"
    plan.report(Surgery(step, every.gram, every.weights, path), measured)


def _joined(weighed: Sequence[Weighed]) -> Weighed:
    owner = tuple(branch for each in weighed for branch in each.owner)
    gram, units, weights = (torch.cat(fields) for fields in list(zip(*weighed, strict=True))[1:])
    return Weighed(owner, gram, units, weights)
