"""Which modalities each sample really has.

A face in the dark has no colour image, a recording no sound: the batch keeps a place for it, filled with anything. Who
is missing neither listens nor is listened to: its deltas are exactly 0, and so are those that would come from it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from balancekit._checks import expect
from balancekit._typing import Bool


def modality_names(modalities: Sequence[str]) -> tuple[str, ...]:
    """Check names of modalities: several different strings, without dots, since modules are named after them."""
    several = isinstance(modalities, Sequence) and not isinstance(modalities, str)
    of_names = several and all(isinstance(name, str) for name in modalities)
    expect(of_names, "modalities", "a sequence of names", modalities, error=TypeError)
    names = tuple(modalities)
    fit = names and all(name and "." not in name for name in names) and len(set(names)) == len(names)
    expect(bool(fit), "modalities", "different, non-empty names without a dot", names)
    return names


class Modal(nn.Module):
    """Base of the adapters that know modalities, and can be told which of them a sample lacks."""

    _present: Tensor | None = None

    def __init__(self, modalities: Sequence[str]) -> None:
        super().__init__()
        self.modalities = modality_names(modalities)


@contextmanager
def missing(model: nn.Module, present: Bool[Tensor, "m b"]) -> Iterator[None]:
    """Tell every :class:`CrossModal` and :class:`AMA` inside `model` which modalities each sample of the batch has.

    Args:
        model: the model that is called within the block.
        present: True where the sample has the modality, in the order of the adapters' `modalities`.

    Raises:
        ValueError: if nothing in `model` could listen, or not to so many modalities.

    Example:
        >>> from balancekit.adapters import CrossModal, GatedCrossAttention, ring
        >>> cross = CrossModal(("rgb", "depth"), ring(("rgb", "depth")), lambda: GatedCrossAttention(8))
        >>> for adapter in cross.into("rgb"):
        ...     _ = nn.init.normal_(adapter.up.weight)
        >>> tokens = torch.randn(2 * 2, 3, 8)  # two modalities of two samples
        >>> with missing(cross, torch.tensor([[True, True], [True, False]])):  # sample 1 has no depth
        ...     (cross(tokens) != 0).flatten(1).any(1)  # rgb of both samples, then depth
        tensor([ True, False, False, False])
    """
    listeners = [module for module in model.modules() if isinstance(module, Modal)]
    expect(bool(listeners), "model", "a CrossModal or an AMA inside", model)
    expect(isinstance(present, Tensor), "present", "a boolean tensor 'm b'", present, error=TypeError)
    expect(present.dtype == torch.bool, "present", "a boolean tensor 'm b'", present, error=TypeError)
    for listener in listeners:
        fit = present.ndim == 2 and present.shape[0] == len(listener.modalities)
        expect(fit, "present", f"a tensor 'm b' with m = {len(listener.modalities)}", present)
    before = [listener._present for listener in listeners]
    for listener in listeners:
        listener._present = present
    try:
        yield
    finally:
        for listener, value in zip(listeners, before, strict=True):
            listener._present = value
