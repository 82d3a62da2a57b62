"""What the losses accept: one tensor a modality."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_labels, expect_shape


def expect_modalities(argument: str, values: object, shape: str, *, ndim: int | None = None) -> None:
    """Require a mapping from at least one name to floating-point tensors; see ``expect_floating`` for the rest."""
    expected = "a mapping from modalities to tensors"
    expect(isinstance(values, Mapping), argument, expected, values, error=TypeError)
    assert isinstance(values, Mapping)
    expect(len(values) > 0, argument, "at least one modality", {})
    for name, value in values.items():
        expect_floating(f"{argument}[{name!r}]", value, shape, ndim=ndim)


def expect_names(argument: str, values: Mapping[str, object], names: Iterable[str]) -> None:
    """Require exactly these names, in any order."""
    names = list(names)
    expect(set(values) == set(names), argument, f"the names {names}", list(values))


def expect_alike(argument: str, values: Mapping[str, Tensor]) -> None:
    """Require one shape, one device, and at least one sample."""
    first = next(iter(values.values()))
    for name, value in values.items():
        expect_shape(f"{argument}[{name!r}]", value, tuple(first.shape))
        expect_device(f"{argument}[{name!r}]", value, first)
    expect(first.shape[0] > 0, argument, "at least one sample", first)


def expect_logits(logits: Mapping[str, Tensor], labels: Tensor) -> None:
    """Require logits "b c" of one shape for each modality, and a class in range for each sample."""
    expect_modalities("logits", logits, "of shape (b, c)", ndim=2)
    expect_alike("logits", logits)
    first = next(iter(logits.values()))
    expect_labels("labels", labels, *first.shape)
    expect_device("labels", labels, first)


def widest(tensors: Iterable[Tensor]) -> torch.dtype:
    """The dtype to compute in: float32, or wider where a tensor is."""
    wide = torch.float32
    for tensor in tensors:
        wide = torch.promote_types(wide, tensor.dtype)
    return wide


def stacked(values: Iterable[Tensor]) -> Tensor:
    """All of them along a new first axis, in float32 or wider."""
    values = tuple(values)
    wide = widest(values)
    return torch.stack([value.to(wide) for value in values])
