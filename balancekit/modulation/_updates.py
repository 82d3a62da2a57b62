"""Scale what the optimizer really does to a branch: the actuator that Adam does not cancel.

    Δθ_m ← k_m · Δθ_m

Adam divides a gradient by its own running size, so a constant factor on it comes to nothing: 0.2 on the gradient leaves
1.00 of the update, where SGD makes 0.2 of it.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancekit._checks import expect
from balancekit.modulation._acted import tell
from balancekit.modulation._arguments import expect_scalars


def scale_updates(optimizer: Optimizer, coefficients: Mapping[str, Tensor | float]) -> None:
    """Let the coming ``optimizer.step()`` change each branch by its coefficient times what it would.

    The learning rate of the branch's group is multiplied for that one step. So it is exact for optimizers whose update
    is proportional to it (SGD, Adam, AdamW with its weight decay, …), moments are what they would be, and nothing is
    copied. A step that a gradient scaler skips leaves the coefficients waiting; the next call replaces them. In a
    closure of ``step`` it acts on the step that runs. A learning rate that is a number needs numbers, so coefficients
    on a device are read on the host, once a call; with ``lr=torch.tensor(…)``, as capturable optimizers take it,
    nothing is read.

    Args:
        optimizer: with one group a branch whose "name" is the branch's, as ``branches.param_groups()`` makes them. Of a
            wrapper (accelerate, a gradient scaler) the optimizer inside.
        coefficients: a number or a tensor () for each branch that is to be scaled.

    Raises:
        ValueError: for a branch without a group.

    Example:
        >>> w = torch.zeros(1, requires_grad=True)
        >>> optimizer = torch.optim.Adam([{"name": "audio", "params": [w]}], lr=1.0)
        >>> w.grad = torch.ones(1)
        >>> scale_updates(optimizer, {"audio": 0.2})
        >>> optimizer.step()
        >>> w
        tensor([-0.2000], requires_grad=True)
    """
    _expect_optimizer(optimizer)
    expect_scalars("coefficients", coefficients)
    groups: dict[str, list[dict[str, Any]]] = {}
    for group in optimizer.param_groups:
        groups.setdefault(group.get("name", ""), []).append(group)
    unknown = [name for name in coefficients if name not in groups]
    named = f"branches with a parameter group of that name, of {sorted(groups)}; see Branches.param_groups"
    expect(not unknown, "coefficients", named, unknown)
    plain = [name for name in coefficients if not all(isinstance(g["lr"], Tensor) for g in groups[name])]
    factors = {**coefficients, **_host({name: coefficients[name] for name in plain})}
    _rates(optimizer).scale([(g, factors[name]) for name in coefficients for g in groups[name]])
    tell("updates", coefficients)


def base_rates(optimizer: Optimizer) -> list[Any]:
    """The learning rate of each group, without what :func:`scale_updates` makes of it for a step."""
    _expect_optimizer(optimizer)
    held = {id(group): rate for hook in _hooks(optimizer) for group, rate in hook.held}
    return [held.get(id(group), group["lr"]) for group in optimizer.param_groups]


def _expect_optimizer(optimizer: object) -> None:
    expect(isinstance(optimizer, Optimizer), "optimizer", "a torch.optim.Optimizer", optimizer, error=TypeError)


class _Rates:
    """Scales the learning rates before a step, and puts them back after it; one for each optimizer, for good."""

    def __init__(self, stepping: bool) -> None:
        self.waiting: list[tuple[dict[str, Any], Any]] = []
        self.held: list[tuple[dict[str, Any], Any]] = []
        self.stepping = stepping

    def scale(self, scaled: list[tuple[dict[str, Any], Any]]) -> None:
        """For the coming step, or for the one that runs, if its closure asks."""
        self.restore()
        self.waiting = scaled
        if self.stepping:
            self.act()

    def act(self) -> None:
        bad = [(group, k) for group, k in self.waiting if not (isinstance(k, Tensor) or math.isfinite(k))]
        for group, k in bad:  # the last look at it: a gradient scaler sees gradients alone
            self.waiting, self.stepping = [], False
            expect(False, f"coefficients[{group['name']!r}]", "a finite number", k, error=RuntimeError)
        self.held = [(group, group["lr"]) for group, _ in self.waiting]
        for group, factor in self.waiting:
            group["lr"] = group["lr"] * factor

    def restore(self) -> None:
        for group, rate in self.held:
            group["lr"] = rate
        self.held = []

    def __call__(self, *_: Any) -> None:
        """Before a step. What a step that failed has left is put back first."""
        self.restore()
        self.stepping = True
        self.act()

    def after(self, *_: Any) -> None:
        self.restore()
        self.waiting, self.stepping = [], False


def _hooks(optimizer: Optimizer) -> list[_Rates]:
    return [hook for hook in optimizer._optimizer_step_pre_hooks.values() if isinstance(hook, _Rates)]


def _rates(optimizer: Optimizer) -> _Rates:
    """Of this optimizer; made at the first call."""
    for hook in _hooks(optimizer):
        return hook
    hook = _Rates(_runs(optimizer))
    optimizer.register_step_pre_hook(hook)
    optimizer.register_step_post_hook(hook.after)
    return hook


def _runs(optimizer: Optimizer) -> bool:
    """Whether a step is running, whose closure calls."""
    frame = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "step" and frame.f_locals.get("self") is optimizer):
        frame = frame.f_back
    return frame is not None


def _host(coefficients: Mapping[str, Tensor | float]) -> dict[str, float]:
    """All coefficients as python numbers, with one read for those on a device."""
    tensors = {name: k for name, k in coefficients.items() if isinstance(k, Tensor)}
    read = torch.cat([k.detach().reshape(1) for k in tensors.values()]).tolist() if tensors else []
    plain = {name: float(k) for name, k in coefficients.items() if not isinstance(k, Tensor)}
    return plain | dict(zip(tensors, read, strict=True))
