"""Which modalities each sample really has.

A face in the dark has no colour image, a recording no sound: the batch keeps a place for it, filled with anything. Who
is missing neither listens nor is listened to: its deltas are exactly 0, and so are those that would come from it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from balancekit._checks import expect
from balancekit._typing import Bool
from balancekit.adapters._by_modality import expect_present, modality_names


class Modal(nn.Module):
    """Base of the adapters that know modalities, and can be told which of them a sample lacks."""

    def __init__(self, modalities: Sequence[str]) -> None:
        super().__init__()
        self.modalities: tuple[str, ...] = modality_names(modalities)
        self._present: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_present": None}  # the block of `missing` is not one of the copy's


@contextmanager
def missing(model: nn.Module, present: Bool[Tensor, "m b"]) -> Iterator[None]:
    """Tell every :class:`CrossModal` and :class:`AMA` inside `model` which modalities each sample of the batch has.

    Args:
        model: the model that is called within the block.
        present: True where the sample has the modality, in the order of the adapters' `modalities`.

    With gradient checkpointing keep ``backward()`` within the block: what is recomputed asks again who is missing.

    Raises:
        ValueError: if nothing in `model` could listen, or not to so many modalities.

    Example:
        >>> import torch
        >>> from balancekit.adapters import CrossModal, GatedCrossAttention, ring
        >>> cross = CrossModal(("rgb", "depth"), ring(("rgb", "depth")), lambda: GatedCrossAttention(8))
        >>> for adapter in cross.into("rgb"):
        ...     _ = nn.init.normal_(adapter.up.weight)
        >>> tokens = torch.randn(2 * 2, 3, 8)  # two modalities of two samples
        >>> with missing(cross, torch.tensor([[True, True], [True, False]])):  # sample 1 has no depth
        ...     (cross(tokens) != 0).flatten(1).any(1)  # rgb of both samples, then depth
        tensor([ True, False, False, False])
    """
    expect(isinstance(model, nn.Module), "model", "a torch.nn.Module", model, error=TypeError)
    listeners = [module for module in model.modules() if isinstance(module, Modal)]
    expect(bool(listeners), "model", "a CrossModal or an AMA inside", model)
    for listener in listeners:
        expect_present(present, len(listener.modalities))
    before = [listener._present for listener in listeners]
    for listener in listeners:
        listener._present = present
    try:
        yield
    finally:
        for listener, value in zip(listeners, before, strict=True):
            listener._present = value
