"""Arguments in, samples out: what Monte-Carlo dropout and ensembles share.

Outputs are pytrees: a tensor, or tensors in (nested) tuples, lists, dicts, named tuples and other containers that torch
knows.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# Tensors, each with the number of writes into it that torch has counted.
Counts = Sequence[tuple[Any, int]]
NEVER: Counts = ((SimpleNamespace(_version=0), -1),)  # counts that never agree


def count_writes(leaves: Sequence[Any]) -> Counts:
    """Count the writes so far. Where torch does not, in inference mode and in a traced graph, counts never agree."""
    counts: list[tuple[Tensor, int]] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            if not leaf.is_inference():
                counts.append((leaf, leaf._version))
            elif torch.is_inference_mode_enabled():  # outside, nobody can write into it
                return NEVER
    return counts


def changed(counts: Counts) -> bool:
    """Whether somebody wrote, or may have written, into one of the tensors since."""
    return any(tensor._version != count for tensor, count in counts)


class Inputs:
    """The arguments of a call, for one pass after the other.

    A pass may write into what it gets. So it gets copies, containers included; the copies of one pass serve the next as
    long as torch counts no write into them.
    """

    __slots__ = ("_bare", "_copies", "_copy", "_counts", "_leaves", "_structure")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._bare = not kwargs and set(map(type, args)) == {Tensor}  # no container but this tuple
        self._leaves: Sequence[Any]
        self._structure: Any
        self._leaves, self._structure = (args, None) if self._bare else tree_flatten((args, kwargs))
        self._copy: Callable[[Tensor], Tensor] = torch.clone
        self._copies: tuple[Any, ...] = ()
        self._counts = NEVER

    def tensors(self) -> list[Tensor]:
        """The caller's own, positional ones first."""
        return [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]

    def repeat(self, size: int, batch: int) -> None:
        """From now on, repeat tensors whose first axis has the length `batch`: "b ..." to "(s b) ..."."""

        def repeat(x: Tensor) -> Tensor:
            return x.repeat(size, *[1] * (x.ndim - 1)) if x.ndim and x.shape[0] == batch else x.clone()

        self._copy, self._counts = repeat, NEVER

    def fresh(self) -> tuple[tuple[Any, ...], dict[str, Any], Counts]:
        """Arguments that nobody has written to; they may be given again while each count agrees with ``_version``."""
        if self._counts is NEVER or changed(self._counts):
            self._copies = copy_leaves(self._leaves, self._copy)
            self._counts = NEVER if torch.compiler.is_compiling() else count_writes(self._copies)
        if self._bare:
            return self._copies, {}, self._counts
        return *tree_unflatten(self._copies, self._structure), NEVER


def copy_leaves(leaves: Sequence[Any], copy: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """Copy the tensors. One that occurs twice is copied once: attention asks whether query and key are one object."""
    copies: dict[Any, Any] = {}
    for leaf in leaves:
        if id(leaf) not in copies:
            copies[id(leaf)] = copy(leaf) if isinstance(leaf, Tensor) else leaf
    return tuple(copies.values()) if len(copies) == len(leaves) else tuple(copies[id(leaf)] for leaf in leaves)


def copy_tensors(tree: Any) -> Any:
    """Copy all tensors of a pytree."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)


def join_samples(parts: Sequence[Any], join: Callable[[Any], Tensor] = torch.cat) -> Any:
    """Join outputs whose tensors are "s b ..." along s; None, numbers and strings must agree and stay as they are.

    With ``join=torch.stack`` the tensors are "b ...", one sample each.

    Raises:
        TypeError: if the parts differ in structure, or in a leaf that is no tensor.
    """
    if set(map(type, parts)) == {Tensor}:
        return join(parts)
    leaves, structures = zip(*map(tree_flatten, parts), strict=True)
    if any(structure != structures[0] for structure in structures):
        raise TypeError(f"model: expected outputs of one structure, found {structures}")
    return tree_unflatten([_join(leaf, join) for leaf in zip(*leaves, strict=True)], structures[0])


def _join(parts: tuple[Any, ...], join: Callable[[Any], Tensor]) -> Any:
    if all(isinstance(part, Tensor) for part in parts):
        return join(parts)
    first = parts[0]
    if not isinstance(first, int | float | str | None) or any(part != first for part in parts):
        raise TypeError(f"model: expected outputs made of tensors, found {first!r} of type {type(first).__name__}")
    return first
