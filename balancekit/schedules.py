"""Schedules: what is done to a modality's encoder between epochs, and how strongly.

D&R: Wei et al., "Diagnosing and Re-learning for Balanced Multimodal Learning", ECCV 2024 (arXiv 2407.09705):

    D = |purity of the training features − purity of the validation features|      of one modality, in clusters
    α = tanh(λ D)
    θ ← α θ₀ + (1 − α) θ                                                           θ₀ before the training

====================  ================================================================================================
``purity``            how well clusters agree with classes
``relearn_strength``  two purities → α: the further apart they are, the more of the encoder is given up
``soft_reset``        moves a module back towards its initial state by α
====================  ================================================================================================

Every 20 epochs, for each modality, with any k-means::

    α = relearn_strength(purity(train_clusters, train_labels), purity(val_clusters, val_labels))
    soft_reset(encoder, initial_state, α)

A module is moved, not a gradient, so what happens is the same under every optimizer.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_device, expect_floating, expect_labels, expect_number, expect_shape
from balancekit._precision import widen
from balancekit._typing import Float, Int

__all__ = ["purity", "relearn_strength", "soft_reset"]

MANY = torch.iinfo(torch.int32).max


def purity(clusters: Int[Tensor, "n"], labels: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """The share of samples that have the most frequent class of their cluster.

        (1 / n) Σ over clusters k of max over classes c of |samples of c in k|

    It lies in (0, 1], and is 1 where no cluster holds two classes. Numbers of clusters and classes mean nothing but
    themselves. The more clusters, the purer they are, so compare purities for the same number of them.

    Args:
        clusters: cluster of each sample, from k-means for instance.
        labels: class of each sample.

    Example:
        >>> purity(torch.tensor([0, 0, 0, 1]), torch.tensor([7, 7, 2, 2]))
        tensor(0.7500)
    """
    expect(isinstance(clusters, Tensor), "clusters", "an integer tensor of shape (n,)", clusters, error=TypeError)
    expect(clusters.ndim == 1, "clusters", "an integer tensor of shape (n,)", clusters)
    samples = clusters.shape[0]
    expect(samples > 0, "clusters", "at least one sample", clusters)
    expect_labels("clusters", clusters, samples, MANY)
    expect_labels("labels", labels, samples, MANY)
    expect_device("labels", labels, clusters)
    names, cluster = clusters.unique(return_inverse=True)
    classes, label = labels.unique(return_inverse=True)
    cells = torch.bincount(cluster * len(classes) + label, minlength=len(names) * len(classes))
    return cells.view(len(names), len(classes)).amax(1).sum().to(torch.float32) / samples


def relearn_strength(
    purity_train: float | Float[Tensor, "..."], purity_val: float | Float[Tensor, "..."], *, rate: float = 3.0
) -> Float[Tensor, "..."]:
    """D&R's α = tanh(λ |purity of training − purity of validation|): 0 where both are alike, towards 1 elsewhere.

    A modality whose training features are far more separable than its validation features has learnt its training set
    by heart, and is sent back the furthest.

    Args:
        purity_train: of the training features, in [0, 1]; one modality's or several, in a tensor of any shape.
        purity_val: of the validation features.
        rate: λ, 3 in D&R.

    Returns:
        A tensor in float32 or wider.

    Example:
        >>> relearn_strength(torch.tensor([0.9, 0.5]), torch.tensor([0.6, 0.5]))
        tensor([0.7163, 0.0000])
    """
    for argument, value in (("purity_train", purity_train), ("purity_val", purity_val)):
        if isinstance(value, Tensor):
            expect_floating(argument, value, "of any shape")
        else:
            expect_number(argument, value, low=0.0, high=1.0)
    expect_number("rate", rate, low=0.0)
    if isinstance(purity_train, Tensor) and isinstance(purity_val, Tensor):
        expect_shape("purity_val", purity_val, tuple(purity_train.shape))
        if purity_val.ndim:  # a scalar of the CPU goes with any device
            expect_device("purity_val", purity_val, purity_train)
    train, val = (widen(torch.as_tensor(value)) for value in (purity_train, purity_val))
    return torch.tanh(rate * (train - val).abs())


def soft_reset(
    module: nn.Module,
    initial_state: Mapping[str, Tensor],
    strength: float | Float[Tensor, ""],
    *,
    buffers: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Move a module back towards its initial state, in place: θ ← α θ₀ + (1 − α) θ.

    At strength 0 nothing changes, at 1 the initial state is back, to the last bit, even where θ is not finite. A tensor
    that never left its initial state stays there. Tied tensors move once; those that are no floating-point numbers stay
    as they are.

    D&R's code leaves the buffers and the optimizer's state as they are, and so does this function unless told. But the
    running statistics of BatchNorm then belong to features that are gone, and so do Adam's moments.

    Args:
        module: an encoder, or any other part of the model.
        initial_state: ``copy.deepcopy(module.state_dict())`` from before the training. Entries that the module has not
            are left aside.
        strength: α in [0, 1]; a tensor is read on the host, once.
        buffers: move the floating-point buffers as well, BatchNorm's running statistics among them. Counters stay.
        optimizer: forget what it has gathered about these parameters, as if it were new, at any strength above 0. Not
            Adagrad, which could not go on: it makes its state when it is built.

    Raises:
        TypeError: for an argument that is not what it should be.
        ValueError: for a strength outside of [0, 1]; if an entry of `initial_state` is missing, has another shape, or
            is the module's own tensor (``state_dict()`` without a copy); for an optimizer that has none of the
            parameters, and for Adagrad. The module and the optimizer are then as before.

    Example:
        >>> import copy
        >>> module = nn.Linear(1, 1, bias=False)
        >>> initial_state = copy.deepcopy(module.state_dict())
        >>> _ = nn.init.constant_(initial_state["weight"], 1.0)
        >>> _ = nn.init.constant_(module.weight, 5.0)
        >>> soft_reset(module, initial_state, 0.25)
        >>> module.weight.item()
        4.0

    Method:
        Name: D&R
        Paper: Wei et al., ECCV 2024, arXiv 2407.09705
        Equation: soft re-initialisation
        Hook: parameters, between epochs
        Cost: k-means of features
        Modalities: any
        Test: tests/oracles/test_schedules.py
    """
    expect(isinstance(module, nn.Module), "module", "a torch.nn.Module", module, error=TypeError)
    expected = "a mapping from names to tensors"
    expect(isinstance(initial_state, Mapping), "initial_state", expected, initial_state, error=TypeError)
    alpha = _read(strength)
    live = _live(module, buffers=buffers)
    pairs = [(now, _initial(initial_state, name, now)) for name, now in live.items()]
    own = [now for now in live.values() if isinstance(now, nn.Parameter)]
    if optimizer is not None:
        _check_optimizer(optimizer, own)
    if alpha == 0:
        return
    with torch.no_grad():
        moved = [_between(now, first, alpha) for now, first in pairs]  # all of them, before the first is written
        for (now, _), new in zip(pairs, moved, strict=True):
            now.copy_(new)
    if optimizer is not None:
        for parameter in own:
            optimizer.state.pop(parameter, None)


def _read(strength: object) -> float:
    if isinstance(strength, Tensor):
        expect_floating("strength", strength, "of shape ()", ndim=0)
        strength = strength.item()
    expect_number("strength", strength, low=0.0, high=1.0)
    return float(strength)  # type: ignore[arg-type]


def _live(module: nn.Module, *, buffers: bool) -> dict[str, Tensor]:
    """What is to move, each tensor once, under its name in the state dict, which may not be that of the parameter."""
    live: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, each in module.state_dict(keep_vars=True).items():
        if isinstance(each, nn.Parameter) or (buffers and isinstance(each, Tensor)):
            if (each.is_floating_point() or each.is_complex()) and id(each) not in seen:
                live[name] = each
            seen.add(id(each))
    hidden = [name for name, each in module.named_parameters() if id(each) not in seen]
    expect(not hidden, "module", "a module with all its parameters in its state_dict()", hidden)
    expect(len(live) > 0, "module", "at least one floating-point parameter", module)
    return live


def _initial(state: Mapping[str, Any], name: str, now: Tensor) -> Tensor:
    argument = f"initial_state[{name!r}]"
    shape = tuple(now.shape)
    expected = f"a floating-point tensor of shape {shape}"
    expect(name in state, argument, expected, None)
    first = state[name]
    expect(isinstance(first, Tensor), argument, expected, first, error=TypeError)
    same_kind = first.is_floating_point() == now.is_floating_point() and first.is_complex() == now.is_complex()
    expect(same_kind, argument, expected, first, error=TypeError)
    expect_shape(argument, first, shape)
    shared = first is now or _address(now) == _address(first) != 0
    expect(not shared, argument, "a copy from before the training", "the module's own tensor")
    return first


def _address(x: Any) -> int:
    return (x.to_local() if hasattr(x, "to_local") else x).data_ptr()  # a sharded tensor's own address is 0


def _check_optimizer(optimizer: object, own: list[nn.Parameter]) -> None:
    expect(isinstance(optimizer, torch.optim.Optimizer), "optimizer", "an optimizer", optimizer, error=TypeError)
    assert isinstance(optimizer, torch.optim.Optimizer)
    expected = "an optimizer that makes its state at the first step"
    expect(not isinstance(optimizer, torch.optim.Adagrad), "optimizer", expected, optimizer)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    has = any(id(parameter) in held for parameter in own)
    expect(has, "optimizer", "one with parameters of the module", optimizer)


def _between(now: Tensor, first: Tensor, alpha: float) -> Tensor:
    if alpha == 1:
        return first
    dtype = torch.promote_types(torch.promote_types(now.dtype, first.dtype), torch.float32)
    return torch.lerp(now.to(dtype), first.to(now.device, dtype), alpha)
