"""Pytrees in, samples out: what Monte-Carlo dropout and ensembles share.

A pytree is a tensor, or tensors in (nested) tuples, lists, dicts, named tuples and other containers that torch knows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


def copy_tensors(tree: Any, copy: Callable[[Tensor], Tensor] = torch.clone) -> Any:
    """Copy all tensors of `tree`, so that a module that writes into its input leaves the caller's tensors alone.

    A tensor that occurs twice is copied once: attention asks whether query and key are the same object.
    """
    copies: dict[int, Tensor] = {}

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in copies:
            copies[id(leaf)] = copy(leaf)
        return copies[id(leaf)]

    return tree_map(one, tree)


def join_samples(parts: Sequence[Any]) -> Any:
    """Join outputs whose tensors are "s b ..." along s; None, numbers and strings must agree and stay as they are.

    Raises:
        TypeError: if the parts differ in structure, or in a leaf that is no tensor.
    """
    leaves, structures = zip(*map(tree_flatten, parts), strict=True)
    if any(structure != structures[0] for structure in structures):
        raise TypeError(f"model: expected outputs of one structure, found {structures}")
    return tree_unflatten([_join(leaf) for leaf in zip(*leaves, strict=True)], structures[0])


def _join(parts: tuple[Any, ...]) -> Any:
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(parts)
    first = parts[0]
    if not isinstance(first, int | float | str | None) or any(part != first for part in parts):
        raise TypeError(f"model: expected outputs made of tensors, found {first!r} of type {type(first).__name__}")
    return first
