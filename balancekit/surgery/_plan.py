"""Which tensors need separate passes, which only their own loss reaches, and what can ride on the total's backward.

Every loss r may be *seeded*: the user's backward then starts from it too, with a factor σ_r, in the same traversal as
the total's. That alone hands each tensor Σ_r σ_r g_r, and only tensors which should get something else need rows:

    gradient = Σ_r σ_r g_r + Σ_r (c_r - σ_r) g_r        c: what the tensor is due; the second sum by separate passes

Three kinds of tensors are due different things. *Shared* ones, where losses meet, get the rule's weights, known only
from their rows. *Alone* ones, which only the own branch's loss reaches, get the rule's weight of a Gram matrix with one
row, known beforehand. Tensors of no branch, the *rest*, get every loss once, or the total's alone. So a loss is seeded
with the weight of its alone tensors, or with 1 for the rest, whichever holds more numbers, and passes stop where no
tensor lies further whose rows are wanted.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torch import Tensor

Seed = Literal["none", "one", "own"]  # σ_r: 0, 1, or the weight of the alone tensors of loss r's branch


class Part(NamedTuple):
    """Tensors whose rows are held at one time.

    Attributes:
        leaves: the tensors, shared ones first.
        kind_of: what each is due: one of G granules, or G (alone), or G + 1 (rest).
        rows: for each tensor the rows that are fetched for it.
        owner: the branch of each of the G granules.
    """

    leaves: tuple[Tensor, ...]
    kind_of: tuple[int, ...]
    rows: tuple[frozenset[int], ...]
    owner: tuple[int, ...]


class Division(NamedTuple):
    """The parts, the seed of each row, and the branches that have tensors which only their own loss reaches."""

    parts: tuple[Part, ...]
    seeds: tuple[Seed, ...]
    alone: tuple[int, ...]


def divide(
    owners: Mapping[Tensor, int],
    reached_by: Mapping[Tensor, frozenset[int]],
    outside: Mapping[int, float],
    count: int,
    *,
    per: str,
    rest: str,
    uses_total: bool,
    traversed: bool,
    sync: bool,
    by_branch: bool,
) -> Division:
    """Divide the tensors that the rows reach.

    Args:
        owners: the branch of each tensor that has one.
        reached_by: for each tensor the rows that reach it: 0 the total, if it is a row, and 1 + m.
        outside: how many numbers of no branch each row reaches.
        count: M, the number of branches.
        per: the granule, see :class:`Rebalancer`.
        rest: what tensors of no branch get.
        uses_total: whether the rule weighs the total's row: then no tensor is alone.
        traversed: whether the user's backward runs through the total's graph anyway.
        sync: whether ranks must agree on the seeds.
        by_branch: one part a branch, so that only its rows are held at one time.
    """
    owned = {leaf: owner for leaf, owner in owners.items() if leaf in reached_by}
    met = {leaf for leaf, owner in owned.items() if reached_by[leaf] != {1 + owner}}
    if uses_total or per == "model":
        met = set(owned)
    elif per == "branch":
        meeting = {owned[leaf] for leaf in met}
        met = {leaf for leaf, owner in owned.items() if owner in meeting}
    shared = [leaf for leaf in owned if leaf in met]
    alone = [leaf for leaf in owned if leaf not in met]
    others = [leaf for leaf in reached_by if leaf not in owned]

    def size(leaves: list[Tensor], r: int | None = None) -> int:
        return sum(leaf.numel() for leaf in leaves if r is None or r in reached_by[leaf])

    # where the total's graph is not traversed anyway, one traversal through a large rest still saves several
    rides = traversed or (not sync and size(shared) < (count - 1) * size(others))

    def seed(r: int) -> Seed:
        if r == 0:
            return "one" if rides else "none"
        of_alone, of_rest, of_shared = size(alone, r), outside.get(r, 0), size(shared, r)
        if of_alone == of_rest == 0 or (of_rest and rest == "total") or (of_shared and not rides):
            return "none"
        return "own" if of_alone >= of_rest else "one"

    seeds: tuple[Seed, ...] = tuple(seed(r) for r in range(1 + count))
    fetched = {leaf: reached_by[leaf] for leaf in shared}
    fetched |= {leaf: frozenset(r for r in reached_by[leaf] if seeds[r] != "own") for leaf in alone}
    due = range(1 + count) if rest == "sum" else range(1)
    fetched |= {leaf: frozenset(r for r in due if r in reached_by[leaf] and seeds[r] != "one") for leaf in others}

    groups: dict[int, list[Tensor]] = {}
    for leaf in (leaf for leaf, rows in fetched.items() if rows):
        groups.setdefault(owned[leaf] if by_branch and leaf in met else count, []).append(leaf)
    parts = []
    for leaves in groups.values():
        of_shared = [owned[leaf] for leaf in leaves if leaf in met]
        owner = of_shared if per == "tensor" else sorted(set(of_shared))
        granules = range(len(owner)) if per == "tensor" else [owner.index(branch) for branch in of_shared]
        others_kind = (len(owner) + (leaf not in owned) for leaf in leaves if leaf not in met)
        rows = tuple(fetched[leaf] for leaf in leaves)
        parts.append(Part(tuple(leaves), (*granules, *others_kind), rows, tuple(owner)))
    return Division(tuple(parts), seeds, tuple(sorted({owned[leaf] for leaf in alone})))


def stand_in(
    names: Sequence[str], proxies: Mapping[str, Sequence[Tensor]], reached_by: Mapping[Tensor, frozenset[int]]
) -> Part:
    """The tensors that are measured in place of their whole branch, one granule a branch."""
    chosen = {leaf: m for m, name in enumerate(names) for leaf in proxies[name] if leaf in reached_by}
    owner = sorted(set(chosen.values()))
    return Part(
        tuple(chosen),
        tuple(owner.index(m) for m in chosen.values()),
        tuple(reached_by[leaf] for leaf in chosen),
        tuple(owner),
    )
