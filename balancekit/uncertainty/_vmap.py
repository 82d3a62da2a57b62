"""``torch.vmap`` for functions that return any pytree: it takes tensors alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


def map_samples(function: Callable[..., Any], *stacked: Any) -> Any:
    """Samples "s ...": `function` of each of `stacked`, pytrees of tensors "s ...", with random numbers of its own.

    What depends neither on `stacked` nor on a random number is computed once.
    """
    others: list[Any] = []
    structure: Any = None

    def one(*slices: Any) -> list[Tensor]:
        nonlocal others, structure
        leaves, structure = tree_flatten(function(*slices))
        others = [Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    tensors = iter(torch.vmap(one, randomness="different")(*stacked))
    return tree_unflatten([next(tensors) if leaf is Tensor else leaf for leaf in others], structure)
