"""Modality dropout: in training each modality of each sample is missing with probability 0.3, but never all of them.

What is missing is what :func:`fas.data.hide` makes of it, as in a test without the sensor.
"""

from torch import Tensor

from fas.data import Batch, hide
from fas.samples import MODALITIES

from .base import Fusion, Setup, System

RATE = 0.3


class ModalityDropout(System):
    """Cross-entropy on inputs of which some are hidden."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(Fusion(setup.backbone.streams(setup.channels)))

    def seen_in_training(self, batch: Batch) -> dict[str, Tensor]:
        """The inputs less what is dropped; a sample that would lose everything keeps everything."""
        gone = batch.chance < RATE
        gone &= ~gone.all(1, keepdim=True)
        inputs = batch.inputs
        for name, rows in zip(MODALITIES, gone.unbind(1), strict=True):
            inputs = hide(inputs, [name], rows)
        return inputs
