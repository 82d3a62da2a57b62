"""From the rows of some tensors to their gradients: Gram matrices, the rule's weights, the weighted sum.

:func:`surgery` is the kernel of the engine, a function of tensors alone. It compiles with ``fullgraph=True``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from balancekit._checks import expect_shape
from balancekit._typing import Float
from balancekit.surgery._gram import combine, gram_matrices, on_device
from balancekit.surgery._rule import Rule, Step

Columns = list[list[Tensor | None]]  # for each tensor its rows


class Weighed(NamedTuple):
    """Granules, their branches and Gram matrices, and the weights that the rule returned for them."""

    owner: tuple[int, ...]
    gram: Float[Tensor, "g r r"]
    units: Float[Tensor, "g"]
    weights: Float[Tensor, "g r"]


def weigh(rule: Rule, step: Step, owner: Sequence[int], gram: Tensor, units: Tensor) -> Weighed:
    """Ask the rule, without autocast and without grad, and check the shape of what it returns."""
    step = step._replace(owner=on_device(owner, gram.device), units=units)
    with torch.no_grad(), torch.autocast(gram.device.type, enabled=False):
        weights = rule(gram, step)
    expect_shape("the weights of the rule", weights, tuple(gram.shape[:2]))
    return Weighed(tuple(owner), gram, units, weights)


def weigh_lone(rule: Rule, step: Step, alone: tuple[int, ...]) -> Weighed:
    """Ask the rule for tensors that only the loss of their own branch reaches: one granule a branch, with one row."""
    rows = torch.diag_embed(torch.eye(1 + len(step.losses), dtype=step.losses.dtype, device=step.losses.device))
    if not alone:
        return Weighed((), rows[:0], rows[:0, 0, 0], rows[:0, 0])
    gram = torch.stack([rows[1 + m] for m in alone])
    return weigh(rule, step, alone, gram, torch.ones_like(gram[:, 0, 0]))


def weigh_measured(
    rule: Rule, step: Step, owner: tuple[int, ...], granule_of: Sequence[int], columns: Columns, *, shared_gram: bool
) -> Weighed:
    """Ask the rule for tensors with rows.

    Args:
        rule: the rule.
        step: the facts.
        owner: the branch of each granule.
        granule_of: the granule of each tensor.
        columns: the rows of each tensor, for all 1 + M rows.
        shared_gram: whether all granules see the Gram matrix of all tensors.

    Raises:
        RuntimeError: if no tensor has a row.
    """
    found = [t for t in range(len(granule_of)) if any(row is not None for row in columns[t])]
    if not found:
        raise RuntimeError(
            "losses: expected gradients on the branches, found none: a backward on the way returned None"
        )
    rows = [columns[t] for t in found]
    if shared_gram:
        gram, units = gram_matrices(rows, [0] * len(found), 1, step.losses)
        gram, units = gram.expand(len(owner), -1, -1), units.expand(len(owner))
    else:
        gram, units = gram_matrices(rows, [granule_of[t] for t in found], len(owner), step.losses)
    return weigh(rule, step, owner, gram, units)


def surgery(
    rule: Rule,
    step: Step,
    owner: tuple[int, ...],
    kind_of: Sequence[int],
    columns: Columns,
    taken: Float[Tensor, "r"],
    beyond: Float[Tensor, "k r"],
    shared_gram: bool,
) -> tuple[Weighed | None, list[Tensor | None]]:
    """The gradient of each tensor, ``Σ_r (w_r - taken_r) g_r``; its rows are let go of as soon as they are used.

    Args:
        rule: the rule.
        step: the facts.
        owner: the branch of each of the G granules.
        kind_of: for each tensor its granule, or G + k for one that has the coefficients ``beyond[k]``; granules first.
        columns: the rows of each tensor; emptied.
        taken: what each tensor gets anyway.
        beyond: coefficients that are known.
        shared_gram: whether all granules see the Gram matrix of all tensors.
    """
    weighed, due = None, beyond
    if owner:
        granule_of = [kind for kind in kind_of if kind < len(owner)]
        weighed = weigh_measured(rule, step, owner, granule_of, columns, shared_gram=shared_gram)
        due = torch.cat([weighed.weights - taken, beyond])
    coefficients = [row.unbind() for row in due.unbind()]
    return weighed, combine(columns, [coefficients[kind] for kind in kind_of])
