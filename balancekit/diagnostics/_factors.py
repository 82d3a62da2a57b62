"""What actuators of gradients and updates did to each branch since the last step that the optimizer made."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from balancekit.branches import Branches

Factor = Tensor | float | None  # None: the gradient without it is no multiple of the one with it


class Factors:
    """What was told, and of it, what is in the gradients.

    A step may be left out (a gradient scaler does so where gradients overflow), and the next backward begins anew. So
    one parameter of each branch says when a backward finds no gradient: what was within the one that was dropped is
    over. Before a gradient is accumulated it is seen whether there is one, also in the passes of surgery, which
    accumulate none.
    """

    def __init__(self, branches: Branches | None = None) -> None:
        self.updates: dict[str, Tensor | float] = {}
        self._told: dict[str, list[Factor]] = {}  # and no backward since
        self._within: dict[str, list[Factor]] = {}  # the gradients that there are
        self._fresh: set[str] = set()
        self._handles: list[Any] = []
        for m in branches or ():
            for p in [p for p in branches[m] if p.requires_grad][:1]:  # type: ignore[index]
                self._handles.append(p.register_hook(partial(self._look, m, p)))
                self._handles.append(p.register_post_accumulate_grad_hook(partial(self._accumulated, m)))

    def add(self, on: str, coefficients: Mapping[str, Tensor | float]) -> None:
        """An actuator was called."""
        for m, k in coefficients.items():
            if on == "updates":
                self.updates[m] = k
            elif on != "features":
                single = on in ("backward", "gradients") and not (isinstance(k, Tensor) and k.ndim)
                where = self._told if on == "backward" else self._within
                where.setdefault(m, []).append(k if single else None)

    def known(self, m: str) -> bool:
        """Whether the gradient without modulation can be told from the one that there is."""
        every = self._every(m)
        return len(every) <= 1 and None not in every

    def gradient(self, m: str) -> Tensor | float | None:
        """The factor in the gradient of this branch; None where there is none."""
        return next((k for k in self._every(m) if k is not None), None)

    def clear(self) -> None:
        """The optimizer made its step."""
        self.updates, self._told, self._within = {}, {}, {}

    def stop(self) -> None:
        """Listen no longer."""
        self.clear()
        for handle in self._handles:
            handle.remove()

    def _every(self, m: str) -> list[Factor]:
        return [*self._within.get(m, ()), *self._told.get(m, ())]

    def _look(self, m: str, p: Tensor, _: Tensor) -> None:
        (self._fresh.add if p.grad is None else self._fresh.discard)(m)

    def _accumulated(self, m: str, _: Tensor) -> None:
        before = [] if m in self._fresh else self._within.get(m, [])
        self._within[m] = [*before, *self._told.pop(m, [])]
