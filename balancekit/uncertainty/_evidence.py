"""Whether the passes of a model differ: an estimator whose dropout is off would report certainty."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


class Evidence:
    """Looks at one pass after the other, as long as it has to, and keeps no more than the first."""

    def __init__(self) -> None:
        self.random = False
        self._first: Any = None
        self._passes = 0

    def see(self, outputs: Iterable[Any]) -> None:
        """Take passes into account. Rows within one may differ by rounding alone, so only whole passes are compared."""
        for output in outputs:
            if self.random:
                self._first = None
                return
            if not self._passes:
                self._first, self._passes = output, 1
            elif (same := _same(self._first, output)) is not None:
                self.random, self._passes = not same, self._passes + 1

    def see_mapped(self, outputs: Iterable[Any]) -> None:
        """Take passes "s ..." of ``torch.vmap`` into account.

        It computes once what it does not map. So samples of one pass that are equal were not drawn each, whether or not
        a stream advanced: a random operation inside ``nn.LSTM`` runs once for all.
        """
        for output in outputs:
            if self.random:
                return
            leaves = _tensors(output)
            self.random = not all(_equal(leaf[1:], leaf[:-1]) for leaf in leaves)
            self._first, self._passes = output, self._passes + max((len(leaf) for leaf in leaves), default=0)

    def see_streams(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
        """Take the states of the global streams around a pass into account; return whether it takes more to tell."""
        self.random = self.random or not all(map(torch.equal, before, after))
        return not self.random

    def expect_random(self) -> None:
        """Raise if all passes were equal, NaN included. An empty batch is evidence of nothing."""
        if not self.random and any(leaf.numel() for leaf in _tensors(self._first)):
            raise RuntimeError(
                f"model: expected samples that differ, found {self._passes} bit-equal passes: no part of it that runs "
                "in train mode draws random numbers, or none that its backend can draw anew for each sample"
            )


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _same(a: Any, b: Any) -> bool | None:
    """Whether two outputs are equal; None if they have different shapes."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _equal(a, b) if a.shape == b.shape else None
    pairs = list(zip(_tensors(a), _tensors(b), strict=False))
    if len(_tensors(a)) != len(_tensors(b)) or any(x.shape != y.shape for x, y in pairs):
        return None
    return all(_equal(x, y) for x, y in pairs)


def _equal(a: Tensor, b: Tensor) -> bool:
    if torch.equal(a, b):
        return True
    if torch.equal(a, a):
        return False  # as nearly always: there is no NaN, which differs from itself
    return bool(((a == b) | ((a != a) & (b != b))).all())
