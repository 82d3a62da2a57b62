"""Act on parameter gradients: scale them, add OGM-GE's noise, or drop them so that a branch stays as it is.

For models without a boundary between a branch and the rest, and for the noise, which is one of parameters. Call it
after backward, after unscaling and before clipping.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_generator
from balancekit._distributed import common_generator, world_size
from balancekit.branches import Branches
from balancekit.modulation._acted import tell
from balancekit.modulation._arguments import expect_scalars


def scale_gradients(
    branches: Branches,
    coefficients: Mapping[str, Tensor | float],
    *,
    noise: bool = False,
    generator: torch.Generator | None = None,
    released: bool = False,
) -> None:
    """Multiply the gradient of each parameter of a branch by its coefficient, and add noise if asked for.

        g ← k g + ε,   ε ~ N(0, std(g)²) of each tensor, of g as it was

    OGM-GE (arXiv 2203.15332), Eq. 10 and Algorithm 1. The noise is that of the gradient before scaling: at k = 0.3 it
    is over three times the scaled gradient.

    Args:
        branches: whose parameters.
        coefficients: a number or a tensor () for each branch that is to be scaled.
        noise: add ε, to every branch of `coefficients`.
        generator: of the noise, on the device of the parameters. Processes of one training need equal ones, as
            gradients are averaged before; without one they agree on a seed, which is read on the host, and each
            must make the call.
        released: only tensors of four axes, the weights of convolutions, as in the released code: on a transformer
            nothing happens, and only :func:`~balancekit.diagnostics.watch` says so.

    Raises:
        ValueError: for a name that is no branch, and for a branch of which no parameter has a gradient.

    Example:
        >>> from torch import nn
        >>> model = nn.ModuleDict({"audio": nn.Linear(1, 1, bias=False)})
        >>> model["audio"](torch.ones(1, 1)).sum().backward()
        >>> scale_gradients(Branches(model, {"audio": "audio"}), {"audio": 0.25})
        >>> model["audio"].weight.grad
        tensor([[0.2500]])
    """
    expect_scalars("coefficients", coefficients)
    expect_generator("generator", generator)
    gradients = _gradients(branches, coefficients)
    for name, k in coefficients.items():
        if isinstance(k, Tensor) and k.device.type != "cpu":  # a scalar of the CPU goes with any device
            expect_device(f"coefficients[{name!r}]", k, gradients[name][0])
    if noise and generator is None and gradients and world_size() > 1:
        generator = common_generator(next(each[0].device for each in gradients.values()))
    acted: dict[str, dict[str, Tensor | float]] = {"gradients": {}, "noise": {}}
    for name, each in gradients.items():
        touched = [gradient for gradient in each if not released or gradient.ndim == 4]
        if touched:
            acted["gradients" if len(touched) == len(each) and not noise else "noise"][name] = coefficients[name]
        for gradient in touched:
            deviation = gradient.std(correction=min(1, gradient.numel() - 1)) if noise else None
            gradient.mul_(k.detach() if isinstance(k := coefficients[name], Tensor) else k)
            if deviation is not None:
                shape, kind = gradient.shape, {"device": gradient.device, "dtype": gradient.dtype}
                gradient.add_(deviation * torch.randn(shape, generator=generator, **kind))
    for on, those in acted.items():
        if those:
            tell(on, those)


def freeze(branches: Branches, names: Mapping[str, Tensor | float] | list[str]) -> None:
    """Drop the gradients of these branches, so that the coming step leaves them exactly as they are.

    A gradient of zero does not do that: momentum, Adam's moments and weight decay go on. Optimizers skip a parameter
    that has no gradient.

    Args:
        branches: whose parameters.
        names: the branches; of a mapping, those whose coefficient is 0, which is read on the host.
    """
    _expect_branches(branches)
    if isinstance(names, Mapping):
        expect_scalars("names", names)
    several = isinstance(names, Collection) and not isinstance(names, str)
    expect(several, "names", "a list of branches, or a mapping", names, error=TypeError)
    unknown = [name for name in names if name not in branches]
    expect(not unknown, "names", f"names among {list(branches)}", unknown)
    chosen = [name for name in names if not isinstance(names, Mapping) or not names[name]]
    for name in chosen:
        for parameter in branches[name]:
            parameter.grad = None
    tell("freeze", dict.fromkeys(chosen, 0.0))


def _gradients(branches: Branches, names: Mapping[str, Tensor | float]) -> dict[str, list[Tensor]]:
    _expect_branches(branches)
    unknown = [name for name in names if name not in branches]
    expect(not unknown, "coefficients", f"names among {list(branches)}", unknown)
    found = {name: [p.grad for p in branches[name] if p.grad is not None] for name in names}
    empty = [name for name, each in found.items() if not each]
    expect(not empty, "branches", "a gradient in each branch, after backward; none in", empty)
    return found


def _expect_branches(branches: object) -> None:
    expect(isinstance(branches, Mapping), "branches", "a Branches", branches, error=TypeError)
