"""What an optimizer really does to each branch.

    update ratio      ‖Δθ‖ / ‖θ‖                     of all its tensors
    gradient energy   Σ over the steps of ‖η g‖²     cumulative (CGE), estimated from every n-th step
    efficacy          ‖Δθ with modulation‖ / ‖Δθ without‖

Efficacy is measured on up to 1024 numbers of a branch's largest tensor. A second optimizer of the same kind follows
them with the gradient as it would be without the coefficient, from the same values in every step, so that its moments
are those of a training without modulation. Under SGD the result is the coefficient; 1 means that the optimizer cancels
it. Where the gradient without modulation cannot be known, it is NaN from then on.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancekit._precision import widen
from balancekit.branches import Branches
from balancekit.diagnostics._factors import Factors
from balancekit.modulation import base_rates

NUMBERS = 1024
ELEMENTWISE = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax")


class Updates:
    """Before and after each step of an optimizer. Who owns what is looked up when numbers are due."""

    def __init__(self, optimizer: Optimizer, branches: Branches) -> None:
        self.optimizer, self.branches = optimizer, branches
        self.energy: dict[str, Tensor] = {}
        self.start: dict[str, list[Tensor]] | None = None
        self.twins: dict[str, _Twin] = {}
        self.stale = False
        self.groups = -1
        self.own: dict[str, tuple[Tensor, ...]] = {}
        self.place: dict[str, dict[Tensor, int]] = {}  # of those that the optimizer has: the group

    def before(self, due: bool, every: int, factors: Factors, *, stale: bool) -> dict[str, Tensor]:
        """Look at gradients and values; returns numbers to log if `due`.

        `stale`: gradients are not those of this step, as a closure is to make them.
        """
        self.stale = stale or getattr(self.optimizer, "grad_scale", None) is not None
        rates = base_rates(self.optimizer)
        groups = self.optimizer.param_groups
        if due or len(groups) != self.groups:
            self.groups = len(groups)
            self.own = {m: self.branches[m] for m in self.branches}
            place = {p: i for i, group in enumerate(groups) for p in group["params"]}
            self.place = {m: {p: place[p] for p in each if p in place} for m, each in self.own.items()}
        if due:
            self.start = {m: [p.detach().clone() for p in each] for m, each in self.own.items()}
        self._follow(rates, factors)
        if not due or self.stale:
            return {}
        found = {}
        for m, placed in self.place.items():
            moved = [(p.grad, rates[i]) for p, i in placed.items() if p.grad is not None]
            if moved:
                terms = torch.stack([rate * norm(gradient) for gradient, rate in moved])
                term = every * (terms * factors.updates.get(m, 1.0)).square().sum()
                found[f"gradient energy/{m}"] = self.energy[m] = self.energy.get(m, 0) + term
        return found

    def after(self) -> dict[str, Tensor]:
        """Compare with what was before the step; nothing if it was not due."""
        efficacy = {} if self.stale else {m: twin.compare() for m, twin in self.twins.items() if twin.moves}
        start, self.start = self.start, None
        if start is None:
            return {}
        found = {f"efficacy/{m}": value for m, value in efficacy.items()}
        for m, old in start.items():
            size = torch.stack([norm(o) for o in old]).norm()
            for o, p in zip(old, self.own[m], strict=True):
                o.sub_(p.detach())
            found[f"update ratio/{m}"] = torch.stack([norm(o) for o in old]).norm() / size
        return found

    def _follow(self, rates: list[Any], factors: Factors) -> None:
        if type(self.optimizer).__name__ not in ELEMENTWISE:
            return
        groups = self.optimizer.param_groups
        for m, placed in self.place.items():
            if m not in self.twins and placed:
                largest = max(placed, key=lambda p: p.numel())
                self.twins[m] = _Twin(self.optimizer, largest, groups[placed[largest]])
            if m in self.twins and (p := self.twins[m].p) in placed:
                options = groups[placed[p]] | {"lr": rates[placed[p]]}
                known = factors.known(m) and not self.stale
                self.twins[m].follow(options, factors.gradient(m), known=known)


class _Twin:
    """Some numbers of one tensor, and a second optimizer that moves them without modulation."""

    def __init__(self, optimizer: Optimizer, p: Tensor, group: dict[str, Any]) -> None:
        self.real, self.p = optimizer, p
        kind: Any = type(optimizer)
        options = {key: value for key, value in group.items() if key not in ("params", "name")}
        self.twin = _some(p).clone().requires_grad_()
        self.shadow: Optimizer = kind([{**options, "params": [self.twin]}], lr=1e-3)
        self.known = torch.ones((), dtype=torch.bool, device=p.device)
        state = optimizer.state.get(p, {})
        self.foreign = bool(state)  # a past of which it is not known what was scaled
        for key, value in state.items():
            alike = isinstance(value, Tensor) and value.shape == p.shape
            self.shadow.state[self.twin][key] = _some(value).clone() if alike else _copy(value)

    def follow(self, options: dict[str, Any], k: Tensor | float | None, *, known: bool) -> None:
        """Take the values, and the gradient without the factor `k`."""
        (group,) = self.shadow.param_groups
        group.update({key: value for key, value in options.items() if key not in ("params", "name")})
        if self.shadow.state.get(self.twin) and not self.real.state.get(self.p):
            self.shadow.state.pop(self.twin)  # as it was forgotten there
        self.old = _some(self.p).clone()
        self.twin.detach().copy_(self.old)
        gradient = self.p.grad
        self.moves = gradient is not None
        self.twin.grad = None
        if gradient is None:
            return
        if gradient.is_sparse or not known or (self.foreign and k is not None):
            self.known = torch.zeros_like(self.known)
        if not gradient.is_sparse:
            self.twin.grad = _some(gradient).clone()
            if k is not None:
                k = torch.as_tensor(k, dtype=gradient.dtype, device=gradient.device).detach()
                self.known = self.known & (k != 0)
                self.twin.grad = torch.where(k != 0, self.twin.grad / k, self.twin.grad)

    def compare(self) -> Tensor:
        """The second optimizer's step, and the ratio of the two."""
        self.shadow.step()
        ratio = (_some(self.p) - self.old).norm() / (self.twin.detach() - self.old).norm()
        return torch.where(self.known, ratio, torch.nan)


def norm(x: Tensor) -> Tensor:
    """In float32 or wider."""
    return widen((x.coalesce().values() if x.is_sparse else x).detach()).norm()


def _some(x: Tensor) -> Tensor:
    """At most so many of its numbers, evenly spread."""
    flat = x.detach().reshape(-1)
    return flat[:: -(-flat.numel() // NUMBERS)]


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
