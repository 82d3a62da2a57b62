"""Scale what the optimizer really does to a branch: the actuator that Adam does not cancel.

    Δθ_m ← k_m · Δθ_m

Adam divides a gradient by its own running size, so a constant factor on it comes to nothing: 0.2 on the gradient leaves
1.00 of the update, where SGD makes 0.2 of it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from balancekit._checks import expect, is_real
from balancekit.modulation._acted import tell


def scale_updates(optimizer: Optimizer, coefficients: Mapping[str, Tensor | float]) -> None:
    """Let the coming ``optimizer.step()`` change each branch by its coefficient times what it would.

    The learning rate of the branch's group is multiplied for that one step. So it is exact for optimizers whose update
    is proportional to it (SGD, Adam, AdamW with its weight decay, …), moments are what they would be, and nothing is
    copied. A step that a gradient scaler skips leaves the coefficients waiting; the next call replaces them. Tensors
    are read on the host, once a call, unless the learning rate is a tensor itself.

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
    expect(isinstance(optimizer, Optimizer), "optimizer", "a torch.optim.Optimizer", optimizer, error=TypeError)
    groups: dict[str, list[dict[str, Any]]] = {}
    for group in optimizer.param_groups:
        groups.setdefault(group.get("name", ""), []).append(group)
    unknown = [name for name in coefficients if name not in groups]
    named = f"branches with a parameter group of that name, of {sorted(groups)}; see Branches.param_groups"
    expect(not unknown, "coefficients", named, unknown)
    for name, k in coefficients.items():
        fits = k.ndim == 0 if isinstance(k, Tensor) else is_real(k)
        expect(fits, f"coefficients[{name!r}]", "a number or a tensor ()", k)
    factors = _host(coefficients)
    for hook in tuple(optimizer._optimizer_step_pre_hooks.values()):
        if isinstance(hook, _Once):
            hook.cancel()
    _Once(optimizer, [(group, factors[name], coefficients[name]) for name in coefficients for group in groups[name]])
    tell("updates", coefficients)


class _Once:
    """Before a step: scale the learning rates; after it: put them back."""

    def __init__(self, optimizer: Optimizer, scaled: list[tuple[dict[str, Any], float, Any]]) -> None:
        self.scaled = scaled
        self.handle = optimizer.register_step_pre_hook(self)

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.cancel()
        rates = [(group, group["lr"]) for group, _, _ in self.scaled]
        for group, factor, k in self.scaled:
            group["lr"] = group["lr"] * (k if isinstance(group["lr"], Tensor) else factor)

        def restore(*_: Any) -> None:
            handle.remove()
            for group, rate in rates:
                group["lr"] = rate

        handle = optimizer.register_step_post_hook(restore)

    def cancel(self) -> None:
        self.handle.remove()


def _host(coefficients: Mapping[str, Tensor | float]) -> dict[str, float]:
    """All coefficients as python numbers, with one read for those on a device."""
    tensors = {name: k for name, k in coefficients.items() if isinstance(k, Tensor)}
    read = torch.stack([k.detach().double() for k in tensors.values()]).tolist() if tensors else []
    return {
        **{name: k for name, k in coefficients.items() if not isinstance(k, Tensor)},
        **dict(zip(tensors, read, strict=True)),
    }  # type: ignore[dict-item]
