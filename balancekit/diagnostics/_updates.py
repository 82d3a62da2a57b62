"""What an optimizer really does to each branch.

    update ratio      ‖Δθ‖ / ‖θ‖                     of all its tensors
    gradient energy   Σ over the steps of ‖η g‖²     cumulative (CGE), estimated from every n-th step
    efficacy          ‖Δθ with modulation‖ / ‖Δθ without‖

Efficacy is measured on up to 1024 numbers of a branch's largest tensor. A second optimizer of the same kind follows
them with the gradient as it would be without the coefficient, from the same values in every step, so that its moments
are those of a training without modulation. Under SGD the result is the coefficient; 1 means that the optimizer cancels
it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancekit.branches import Branches

NUMBERS = 1024
ELEMENTWISE = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax")


class Updates:
    """Before and after each step of an optimizer."""

    def __init__(self, optimizer: Optimizer, branches: Branches) -> None:
        self.optimizer, self.branches = optimizer, branches
        self.energy: dict[str, Tensor] = {}
        self.shadow: Optimizer | None = None
        self.follows = type(optimizer).__name__ in ELEMENTWISE
        self.lost: set[str] = set()  # branches whose gradient without modulation is not known

    def before(self, due: bool, every: int, coefficients: dict[str, Tensor | float]) -> dict[str, Tensor]:
        """Look at gradients and values; returns numbers to log if `due`."""
        self.start = {m: [p.detach().clone() for p in self.branches[m]] for m in self.branches} if due else None
        if self.follows:
            self._follow(coefficients)
        if not due:
            return {}
        rates = {p: group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        found = {}
        for m in self.branches:
            terms = [(rates[p] * p.grad.norm()) ** 2 for p in self.branches[m] if p.grad is not None and p in rates]
            if terms:
                self.energy[m] = self.energy.get(m, 0) + every * torch.stack(terms).sum()
                found[f"gradient energy/{m}"] = self.energy[m]
        return found

    def after(self) -> dict[str, Tensor]:
        """Compare with what was before the step; nothing if it was not due."""
        found = {}
        efficacy = self._compare() if self.follows and self.shadow is not None else {}
        if self.start is None:
            return {}
        for m, old in self.start.items():
            new = [p.detach() for p in self.branches[m]]
            moved = torch.stack(torch._foreach_norm(torch._foreach_sub(new, old))).norm()  # type: ignore[arg-type]
            found[f"update ratio/{m}"] = moved / torch.stack(torch._foreach_norm(old)).norm()  # type: ignore[arg-type]
        return found | {f"efficacy/{m}": value for m, value in efficacy.items()}

    # --- the second optimizer ---

    def _follow(self, coefficients: dict[str, Tensor | float]) -> None:
        if self.shadow is None:
            self._build()
        assert self.shadow is not None
        for group, (m, p, real) in zip(self.shadow.param_groups, self.followed, strict=True):
            group.update({key: value for key, value in real.items() if key not in ("params", "name")})
            (twin,) = group["params"]
            twin.detach().copy_(_some(p))
            twin.grad = None if p.grad is None else _some(p.grad).clone()
            k = coefficients.get(m, 1.0)
            self.lost.discard(m)
            if isinstance(k, Tensor) and k.ndim:
                self.lost.add(m)
            elif twin.grad is not None:
                k = torch.as_tensor(k, dtype=twin.grad.dtype, device=twin.grad.device)
                twin.grad = torch.where(k != 0, twin.grad / k, twin.grad)
                self.known[m] = k != 0
        self.old = [group["params"][0].detach().clone() for group in self.shadow.param_groups]

    def _compare(self) -> dict[str, Tensor]:
        assert self.shadow is not None
        self.shadow.step()
        found = {}
        for group, old, (m, p, _) in zip(self.shadow.param_groups, self.old, self.followed, strict=True):
            (twin,) = group["params"]
            if twin.grad is None or m in self.lost:
                continue
            ratio = (_some(p) - old).norm() / (twin.detach() - old).norm()
            found[m] = torch.where(self.known[m], ratio, torch.nan)
        return found

    def _build(self) -> None:
        groups = {p: group for group in self.optimizer.param_groups for p in group["params"]}
        self.followed: list[tuple[str, Tensor, dict[str, Any]]] = []
        self.known: dict[str, Tensor] = {}
        twins = []
        for m in self.branches:
            mine = [p for p in self.branches[m] if p in groups]
            if mine:
                p = max(mine, key=lambda each: each.numel())
                self.followed.append((m, p, groups[p]))
                options = {key: value for key, value in groups[p].items() if key not in ("params", "name")}
                twins.append({**options, "params": [_some(p).clone().requires_grad_()]})
        kind: Any = type(self.optimizer)
        self.shadow = kind(twins, lr=1e-3) if twins else None
        if self.shadow is None:
            self.follows = False
            return
        for group, (_, p, _) in zip(self.shadow.param_groups, self.followed, strict=True):
            (twin,) = group["params"]
            for key, value in self.optimizer.state.get(p, {}).items():
                alike = isinstance(value, Tensor) and value.shape == p.shape
                self.shadow.state[twin][key] = _some(value).clone() if alike else _copy(value)


def _some(x: Tensor) -> Tensor:
    """At most so many of its numbers, evenly spread."""
    flat = x.detach().reshape(-1)
    return flat[:: -(-flat.numel() // NUMBERS)]


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
