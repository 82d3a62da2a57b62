"""Rows, Gram matrices, weights, combination: the arithmetic of surgery, and the two Functions that join a backward.

Numerics: Gram matrices are computed in float32 or wider with autocast off, from rows divided by the largest entry of
their tensor, so that neither a loss scale of 2^16 nor a gradient of 1e-24 matters. Weights are applied densely: a row
with weight 0 is still multiplied, so that an inf or NaN in it is never lost.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from balancekit._checks import expect_shape
from balancekit._distributed import all_reduce_sum
from balancekit._typing import Float, Int
from balancekit.surgery._rule import Rule, Step

Row = list[Tensor | None]

_FIRST_ORDER = "create_graph: expected False, found True; surgery is first-order, its result cannot be differentiated"


class Surgery(NamedTuple):
    """What happened in one step, all detached: what a step hook receives.

    Attributes:
        step: the facts that the rule saw.
        gram: the Gram matrices that it saw, each up to a positive factor.
        weights: what it returned.
        path: "collapse" (one ordinary backward) or "general" (one pass per loss).
    """

    step: Step
    gram: Float[Tensor, "g r r"]
    weights: Float[Tensor, "g r"]
    path: Literal["collapse", "general"]


class Plan(NamedTuple):
    """Everything about a call but its graph: what one backward needs to know."""

    rule: Rule
    step: Step  # owner: of the granules
    weight: float
    leaves: tuple[Tensor, ...]  # what the graft hands gradients to; those of the branches come first
    granule_of: tuple[int, ...]  # the granule of each branch leaf
    names: tuple[int, ...]  # the modality index of each loss
    row_of_total: bool  # the total's gradient is a row too: the graft carries all of it
    shared_gram: bool  # per="model": all branches see the Gram matrix of all tensors
    rest_sums: bool
    ranks: Tensor | None  # the number of ranks on which each row exists, if rows are averaged over ranks
    report: Callable[[Surgery], None]


def apply_rule(rule: Rule, gram: Float[Tensor, "g r r"], step: Step) -> Float[Tensor, "g r"]:
    """Call the rule without autocast and without grad, and check the shape of what it returns."""
    with torch.no_grad(), torch.autocast(gram.device.type, enabled=False):
        weights = rule(gram, step)
    expect_shape("the weights of the rule", weights, tuple(gram.shape[:2]))
    return weights


def tensor_gram(rows: Sequence[Tensor | None]) -> tuple[Float[Tensor, "r r"], Float[Tensor, ""]]:
    """Gram matrix of the gradients of one tensor, divided by the square of their largest entry; and that entry."""
    present = [i for i, row in enumerate(rows) if row is not None]
    flat = torch.stack([_flat(rows[i]) for i in present])  # type: ignore[arg-type]
    scale = flat.abs().amax() if flat.numel() else flat.new_zeros(())
    flat = flat / torch.where(scale == 0, 1, scale)
    gram = flat.new_zeros(len(rows), len(rows))
    index = torch.tensor(present, device=flat.device)
    gram[index.unsqueeze(-1), index] = flat @ flat.T
    return gram, scale


def _flat(row: Tensor) -> Tensor:
    row = row.to_dense() if row.layout != torch.strided else row
    row = torch.view_as_real(row) if row.is_complex() else row  # Re<a, b>
    return row.reshape(-1).to(torch.promote_types(row.dtype, torch.float32))


def granule_grams(
    grams: Float[Tensor, "t r r"], scales: Float[Tensor, "t"], granule_of: Int[Tensor, "t"], count: int
) -> tuple[Float[Tensor, "g r r"], Float[Tensor, "g"]]:
    """Gram matrices of the granules: the sum of their tensors' matrices, in units of the granule's largest entry."""
    largest = scales.new_zeros(count).scatter_reduce(0, granule_of, scales, "amax")
    units = scales / torch.where(largest == 0, 1, largest)[granule_of]
    summed = grams.new_zeros(count, *grams.shape[1:]).index_add(0, granule_of, units.square()[:, None, None] * grams)
    return summed, largest


def combine(rows: Sequence[Tensor | None], weights: Sequence[Tensor | float]) -> Tensor | None:
    """Σ_r weights[r] · rows[r] over the rows that exist."""
    terms = [row * weight for row, weight in zip(rows, weights, strict=True) if row is not None]
    terms.sort(key=lambda term: term.is_sparse)  # dense + sparse exists, sparse + dense does not
    return reduce(add, terms) if terms else None


def operate(plan: Plan, rows: list[Row]) -> list[Tensor | None]:
    """Turn the rows of all leaves, row 0 the total's, into one gradient per leaf."""
    if plan.ranks is not None:
        _average(rows, plan.leaves[: len(plan.granule_of)], plan.ranks)
    columns = list(zip(*rows, strict=True))
    branch, rest = columns[: len(plan.granule_of)], columns[len(plan.granule_of) :]
    reached = [t for t, column in enumerate(branch) if any(row is not None for row in column)]
    if not reached:
        raise RuntimeError(
            "losses: expected gradients on the branches, found none: a backward on the way returned None"
        )
    pairs = [tensor_gram(branch[t]) for t in reached]
    device, dtype = plan.step.losses.device, torch.float32
    for gram, _ in pairs:
        dtype = torch.promote_types(dtype, gram.dtype)
    grams = torch.stack([gram.to(device, dtype) for gram, _ in pairs])
    scales = torch.stack([scale.to(device, dtype) for _, scale in pairs])
    count = len(plan.step.owner)
    if plan.shared_gram:
        index = torch.zeros(len(reached), dtype=torch.int64, device=device)
        gram, units = granule_grams(grams, scales, index, 1)
        gram, units = gram.expand(count, -1, -1), units.expand(count)
    else:
        index = torch.tensor([plan.granule_of[t] for t in reached], device=device)
        gram, units = granule_grams(grams, scales, index, count)
    step = plan.step._replace(units=units)
    weights = apply_rule(plan.rule, gram, step)
    plan.report(Surgery(step, gram, weights, "general"))

    out = [combine(column, weights[g].unbind()) for column, g in zip(branch, plan.granule_of, strict=True)]
    on_rest = len(rows) if plan.rest_sums else 1  # all rows, or the total's alone
    return out + [combine(column[:on_rest], [1.0] * on_rest) for column in rest]


def _average(rows: list[Row], leaves: Sequence[Tensor], ranks: Tensor) -> None:
    """Replace the branch part of each row by its mean over the ranks that have it, in one collective."""
    n = len(leaves)
    filled = [
        torch.zeros_like(leaf) if part is None else part.to_dense() if part.is_sparse else part
        for row in rows
        for leaf, part in zip(leaves, row, strict=False)
    ]
    summed = all_reduce_sum(filled)
    for r, row in enumerate(rows):
        row[:n] = [part / ranks[r].clamp(min=1) for part in summed[r * n : (r + 1) * n]]


class Graft(torch.autograd.Function):
    """The identity on the total, whose backward runs the unimodal passes and hands the result to the leaves.

    The passes are seeded with the incoming gradient, so a loss scale reaches them. The losses travel as saved tensors:
    autograd lets go of them when it lets go of any other saved tensor.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, total: Tensor, roots: tuple[Tensor, ...], *leaves: Tensor) -> Tensor:
        ctx.plan = plan
        ctx.save_for_backward(*roots)
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (incoming,) = gradients
        if torch.is_grad_enabled():
            raise RuntimeError(_FIRST_ORDER)
        plan: Plan = ctx.plan
        count = len(plan.step.losses)
        rows: list[Row] = [[None] * len(plan.leaves) for _ in range(1 + count)]
        roots = list(ctx.saved_tensors)
        if plan.row_of_total:
            rows[0] = _pass(roots.pop(0), plan.leaves, incoming)
        for index, root in zip(plan.names, roots, strict=True):
            rows[1 + index] = _pass(root, plan.leaves, incoming * plan.weight)
        with torch.no_grad(), torch.autocast(incoming.device.type, enabled=False):
            out = operate(plan, rows)
        return (None, None if plan.row_of_total else incoming, None, *out)


def _pass(root: Tensor, leaves: Sequence[Tensor], seed: Tensor) -> Row:
    trained = [i for i, leaf in enumerate(leaves) if leaf.requires_grad]  # some may have been frozen since the call
    row: Row = [None] * len(leaves)
    try:
        found = torch.autograd.grad(
            root, [leaves[i] for i in trained], seed.to(root.dtype), retain_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        if "donated buffers" not in str(error):
            raise
        raise RuntimeError(
            "a compiled model whose first backward was an ordinary one keeps no graph for a second pass; set "
            "torch._functorch.config.donated_buffer = False before that first backward"
        ) from error
    for i, gradient in zip(trained, found, strict=True):
        row[i] = gradient
    return row


class Weighted(torch.autograd.Function):
    """The identity on the total, whose backward also seeds each loss with its weight: the collapse."""

    @staticmethod
    def forward(
        ctx: Any, report: Callable[[], None], total: Tensor, coefficients: tuple[Tensor, ...], *losses: Tensor
    ) -> Tensor:
        ctx.report, ctx.coefficients = report, coefficients
        ctx.dtypes = [loss.dtype for loss in losses]
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (incoming,) = gradients
        if torch.is_grad_enabled():
            raise RuntimeError(_FIRST_ORDER)
        ctx.report()
        seeds = ((incoming * c).to(dtype) for c, dtype in zip(ctx.coefficients, ctx.dtypes, strict=True))
        return (None, incoming, None, *seeds)
