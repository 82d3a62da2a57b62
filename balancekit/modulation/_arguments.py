"""What modulation accepts: one tensor, or one number, a modality; and ratios of all of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, is_real
from balancekit._typing import Float


def expect_mapping(argument: str, values: object) -> None:
    """Require a mapping by modality."""
    expect(isinstance(values, Mapping), argument, "a mapping with modalities as keys", values, error=TypeError)


def expect_features(features: Mapping[str, Tensor]) -> None:
    """Require one tensor for each of at least one modality."""
    expect_mapping("features", features)
    expect(len(features) > 0, "features", "at least one modality", {})
    for name, each in features.items():
        expect(isinstance(each, Tensor), f"features[{name!r}]", "a tensor", each, error=TypeError)


def expect_rows(features: Mapping[str, Tensor]) -> None:
    """Require floating-point features with one row a sample, of as many samples on one device."""
    expect_features(features)
    first = next(iter(features.values()))
    for name, each in features.items():
        expect_floating(f"features[{name!r}]", each, "with one row a sample")
        expected = f"one row for each of the {first.shape[:1].numel()} samples of the first modality"
        expect(each.ndim > 0 and each.shape[:1] == first.shape[:1], f"features[{name!r}]", expected, each)
        expect_device(f"features[{name!r}]", each, first)


def expect_scalars(argument: str, values: Mapping[str, Tensor | float]) -> None:
    """Require one number for each name, or a tensor ()."""
    expect_mapping(argument, values)
    for name, value in values.items():
        fits = value.ndim == 0 and not value.is_complex() if isinstance(value, Tensor) else is_real(value)
        expect(fits, f"{argument}[{name!r}]", "a number or a tensor ()", value)


def side_by_side(argument: str, values: Mapping[str, Tensor | float]) -> Float[Tensor, "m"]:
    """The numbers of at least one modality as one tensor in float32."""
    expect_scalars(argument, values)
    expect(len(values) > 0, argument, "at least one modality", {})
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        expect_device(f"{argument}[{name!r}]", value, next(iter(tensors.values())))
    device = next((value.device for value in tensors.values()), None)
    return torch.stack([torch.as_tensor(value, dtype=torch.float32, device=device) for value in values.values()])


def expect_table(argument: str, table: Float[Tensor, "*b m"]) -> None:
    """Require a number for each of at least one modality, of a batch or of each sample."""
    expect_floating(argument, table, 'of shape (m,) or one row a sample, "b m"')
    expect(table.ndim > 0 and table.shape[-1] > 0, argument, "at least one modality", table)


def expect_presence(present: object, table: Tensor) -> None:
    """Require a bool for each number of `table`."""
    expected = f"a bool tensor of shape {tuple(table.shape)}"
    fits = isinstance(present, Tensor) and present.dtype == torch.bool
    expect(fits, "present", expected, present, error=TypeError)
    assert isinstance(present, Tensor)
    expect(present.shape == table.shape, "present", expected, present)
    expect_device("present", present, table)
