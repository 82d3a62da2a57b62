"""What a branch may be made of: modules, parameters, or their exact names."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from balancekit._checks import expect

Target = nn.Module | nn.Parameter | str
"""A module of the model, one of its parameters, or the exact dotted name of either."""

Group = Target | list[Target] | tuple[Target, ...]
"""What a branch is made of: one target, or several."""


class Place(NamedTuple):
    """A module, or one of its parameters by name. Tensors are looked up when they are needed, never kept."""

    module: nn.Module
    attribute: str | None

    def runs(self) -> bool:
        """Whether this is a module with a forward, unlike a parameter or a ModuleList."""
        missing = nn.Module.forward
        return self.attribute is None and getattr(self.module.forward, "__func__", None) is not missing

    def parameters(self) -> Iterator[nn.Parameter]:
        if self.attribute is None:
            yield from self.module.parameters()
        elif (parameter := self.module._parameters.get(self.attribute)) is not None:
            yield parameter
        else:  # re-parametrised (weight_norm and kin): the parameters behind it
            yield from self.module.get_submodule(f"parametrizations.{self.attribute}").parameters()


def locate(model: nn.Module, branch: str, target: Target) -> Place:
    """Find a target of `branch` in the model; ValueError if it is not there."""
    argument = f"groups[{branch!r}]"
    if isinstance(target, str):
        path, _, leaf = target.rpartition(".")
        try:
            parent = model.get_submodule(path)
        except AttributeError:
            parent = nn.Module()
        child = getattr(parent, leaf, None) if target else model
        if isinstance(child, nn.Module):
            return Place(child, None)
        expect(
            isinstance(child, nn.Parameter), argument, "the exact name of a module or parameter of the model", target
        )
        return Place(parent, leaf)
    if isinstance(target, nn.Module):
        expect(any(target is module for module in model.modules()), argument, "a module of the model", target)
        return Place(target, None)
    expect(isinstance(target, nn.Parameter), argument, "modules, parameters or their names", target, error=TypeError)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is target:
                return Place(module, name)
    raise ValueError(f"{argument}: expected a parameter of the model, found a stranger of shape {tuple(target.shape)}")
