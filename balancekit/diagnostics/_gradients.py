"""Gradients as backward left them, against those that the step finds: what was done to them by hand in between."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from balancekit.branches import Branches
from balancekit.diagnostics._updates import norm


class GradientChanges:
    """Listens to one backward, and compares."""

    def __init__(self, branches: Branches) -> None:
        self.branches = branches
        self.sizes: dict[str, dict[Tensor, Tensor]] = {}
        self.handles: list[Any] = []

    def listen(self) -> None:
        """From now on, note the size of each gradient as it is accumulated."""
        self.sizes = {m: {} for m in self.branches}
        for m in self.branches:
            for p in self.branches[m]:
                if p.requires_grad:
                    self.handles.append(p.register_post_accumulate_grad_hook(partial(self._note, m)))

    def _note(self, m: str, p: Tensor) -> None:
        assert p.grad is not None
        self.sizes[m][p] = norm(p.grad)

    def stop(self) -> None:
        """Listen no longer."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def measured(self) -> dict[str, Tensor]:
        """How many times as large the gradients of each branch are as backward left them; ends listening."""
        self.stop()
        changes = {}
        for m, sizes in self.sizes.items():
            now = [norm(p.grad) for p in sizes if p.grad is not None]
            if now and len(now) == len(sizes):
                changes[m] = torch.stack(now).norm() / torch.stack(list(sizes.values())).norm()
        return changes
