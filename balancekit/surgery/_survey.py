"""What the losses of one call reach: the look at the graph that decides everything else."""

import sys
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from balancekit.surgery._graph import Reach, Walk

Reached = dict[Tensor, frozenset[int]]


class Survey(NamedTuple):
    """For each trainable tensor the rows that reach it (0 the total, 1 + m), and what forbids a pass from a row.

    Attributes:
        reached_by: the rows; on any rank, if ranks are averaged.
        obstacles: by row.
        outside: how many numbers of no branch each row reaches, by row; the mean over ranks, if they are averaged.
        shares: for each tensor that takes part on this rank, which part of the ranks it does so on.
        awaited: the tensors for which DistributedDataParallel waits, if it looks for unused ones.
    """

    reached_by: Reached
    obstacles: dict[int, str]
    outside: dict[int, float]
    shares: dict[Tensor, float]
    awaited: dict[Tensor, None]


def survey(
    model: nn.Module,
    names: list[str],
    owners: Mapping[Tensor, int],
    roots: Mapping[int, Tensor],
    witness: Tensor | None,
) -> Survey:
    """Look at the graphs of the losses; what `witness` reaches takes part as well.

    Raises:
        ValueError: for a unimodal loss that reaches no trainable tensor of its own branch.
        RuntimeError: for a graph that no walk can follow, or that does not end in the parameters.
    """
    if _is_sharded(model):
        raise RuntimeError(
            "losses: expected a graph that ends in the model's parameters, found FSDP2, whose graph ends in unsharded "
            "copies of them, where separate passes find nothing; if no loss reaches another branch, assert it by "
            "independent=True"
        )
    walk = Walk()
    found = {r: walk.reach(root) for r, root in roots.items()}
    for r, each in found.items():
        if r > 0:
            _check(names, r - 1, each, {owners[leaf] for leaf in each.leaves if leaf in owners})
    rows: dict[Tensor, set[int]] = {}
    for r, each in found.items():
        for leaf in each.leaves:
            rows.setdefault(leaf, set()).add(r)
    obstacles = {r: each.obstacle for r, each in found.items() if each.obstacle is not None}
    outside: dict[int, float] = {}
    for leaf in (leaf for leaf in rows if leaf not in owners):
        for r in rows[leaf]:
            outside[r] = outside.get(r, 0.0) + leaf.numel()
    seen = {} if witness is None else walk.reach(witness).leaves
    awaited = walk.awaited()
    reached_by = {leaf: frozenset(reached) for leaf, reached in rows.items()}
    return Survey(reached_by, obstacles, outside, dict.fromkeys([*rows, *seen, *awaited], 1.0), awaited)


def asserted(owners: Mapping[Tensor, int], present: set[int]) -> Survey:
    """The same where the user asserts that each loss reaches the tensors of its own branch and no others."""
    reached_by = {leaf: frozenset([1 + m]) for leaf, m in owners.items() if m in present and leaf.requires_grad}
    return Survey(reached_by, {}, {}, dict.fromkeys(reached_by, 1.0), {})


def _check(names: list[str], m: int, found: Reach, reached: set[int]) -> None:
    if m in reached:
        return
    if found.obstacle is not None:
        raise RuntimeError(refusal(found.obstacle))
    others = f"only tensors of {sorted(names[k] for k in reached)}" if reached else "none of any branch"
    raise ValueError(
        f"losses[{names[m]!r}]: expected a loss that reaches a trainable parameter of branch {names[m]!r}, "
        f"found {others}; are keys swapped, is the branch frozen or its feature detached?"
    )


def refusal(obstacle: str) -> str:
    """The message for a graph in which separate passes would be silently wrong."""
    return f"losses: expected branches that meet nowhere, or a graph that allows separate passes, found {obstacle}"


def _is_sharded(model: nn.Module) -> bool:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # not imported, not used
    return fsdp is not None and any(isinstance(module, fsdp.FSDPModule) for module in model.modules())
