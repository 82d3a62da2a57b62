"""What the members of an ensemble must not share, and must have in common."""

import warnings
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from balancekit._checks import expect


def expect_disjoint(members: Sequence[nn.Module], argument: str = "members") -> None:
    """Raise if two members hold the same parameter."""
    seen: dict[nn.Parameter, int] = {}
    for t, member in enumerate(members):
        for name, parameter in member.named_parameters():
            owner = seen.setdefault(parameter, t)
            expect(owner == t, argument, "modules without common parameters", f"{name} in members {owner} and {t}")


def expect_alike(members: Sequence[nn.Module], argument: str = "members") -> None:
    """Raise unless all members have one class, and tensors of the same names and shapes."""
    for member in members[1:]:
        alike = type(member) is type(members[0]) and _shapes(member) == _shapes(members[0])
        expect(alike, argument, 'modules of one class and of the same shapes for backend="vmap"', member)


def expect_different(members: Sequence[nn.Module]) -> None:
    """Raise if all parameters that vary are bit-equal in two members, warn if some are."""
    if len(members) == 1:
        return
    varying = {name: tensors for name, tensors in _tensors(members).items() if not all(map(_is_constant, tensors))}
    equal = [name for name, tensors in varying.items() if any(torch.equal(a, b) for a, b in combinations(tensors, 2))]
    expect(not varying or len(equal) < len(varying), "factory", "members that differ", f"bit-equal {', '.join(equal)}")
    if equal:
        warnings.warn(
            f"factory: expected members that differ in every random tensor, found bit-equal {', '.join(equal)}; "
            "that is right only for pretrained weights and fixed tables",
            stacklevel=3,
        )


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def _tensors(members: Sequence[nn.Module]) -> dict[str, list[Tensor]]:
    states = [dict(member.named_parameters()) for member in members]
    return {name: [state[name].detach() for state in states if name in state] for name in states[0]}


def _is_constant(tensor: Tensor) -> bool:
    """Whether all entries are equal: zero biases, unit scales."""
    return tensor.numel() == 0 or bool((tensor == tensor.flatten()[0]).all())
