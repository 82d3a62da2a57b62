"""MMDG with our repairs: a real uncertainty, and a gate that can shut out what it distrusts.

- Confidence comes from the sensors' own statistics (:class:`~.sensors.SensorDensity`), not from the size of the
  attention's output.
- Gate "key+output": distrusted patches are not listened to, and a distrusted source adds nothing. (The paper's gate
  leaves the mean of all values in the sum when its confidence is 0.)
- ReGrad's U of a modality is its mean confidence; every tensor of a branch is visited, None gradients count as zero.
"""

from collections.abc import Mapping
from functools import partial
from operator import itemgetter

from torch import Tensor

from balancekit import CrossModal, GatedCrossAttention, Tap, hub
from fas.backbones import Streams

from .base import Fusion, Looks, Output, Setup
from .mmdg import MMDG, SEED
from .sensors import SensorDensity


class SensorGated(Fusion):
    """A fusion whose adapters hear the confidence of the sensors."""

    def __init__(self, trunk: Streams, channels: Mapping[str, int]) -> None:
        super().__init__(trunk)
        names = trunk.modalities
        self.sensors = SensorDensity(channels, trunk.grid)
        taps = {m: Tap(self.sensors, itemgetter(m)) for m in names}
        adapter = partial(GatedCrossAttention, trunk.width, gate="key+output", conv="cdc", grid=trunk.grid)
        self.cross = [CrossModal(names, hub(names[0], names), adapter, confidence=taps) for _ in range(trunk.depth)]
        for block, cross in enumerate(self.cross):
            trunk.beside_mlp(block, cross)

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Classify; the sensors are asked first, so that the adapters can hear them."""
        confidence = self.sensors(inputs)
        return super().forward(inputs)._replace(confidence=confidence)


class Repaired(MMDG):
    """The seed's losses around the repaired network."""

    def __init__(self, setup: Setup) -> None:
        trunk = setup.backbone.streams(setup.channels)
        super().__init__(setup, SEED, network=SensorGated(trunk, setup.channels))

    def prepare(self, train: Looks, dev: Looks, epoch: int) -> None:
        """Fit the densities once, then the prototypes as ever."""
        if not self.network.sensors.fitted:
            self.network.sensors.fit(train, dev)
        super().prepare(train, dev, epoch)
