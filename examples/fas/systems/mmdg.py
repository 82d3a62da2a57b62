"""MMDG (Lin et al., CVPR 2024, arXiv 2402.19298), the seed of this library, with each of its parts on a switch.

U-Adapters between the streams, RGB the hub (Eq. 1-3), gated by UEM's confidence (Eq. 4); a single-side prototype loss
for each modality (Eq. 6 and 7); ReGrad between those (Eq. 5), λ = 0.3 (Eq. 8). Prototypes are recomputed by an exact
pass before each epoch, with 0.2 of the old ones (released code).
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from balancekit import (
    Branches,
    CrossModal,
    GatedCrossAttention,
    PrototypeBank,
    Rebalancer,
    ReGrad,
    Sum,
    dropout_confidence,
    hub,
    prototypical_cross_entropy,
    single_side_labels,
)
from fas.backbones import Streams
from fas.data import Batch

from .base import Fusion, Looks, Output, Setup, System
from .cases import OnlyWhere

WEIGHT = 0.3  # λ


class Parts(NamedTuple):
    """Which parts are on."""

    adapter: bool = True  # U-Adapters between the streams
    uncertainty: bool = True  # UEM's gate in them
    ssp: bool = True  # the unimodal prototype losses, and surgery with them
    regrad: str = "all"  # "all" cases of Eq. 5, "conflict" or "aligned" ones only, "none": the losses are added up


SEED = Parts()


class Gated(Fusion):
    """A fusion whose streams talk through U-Adapters, gated by the confidence of what their attention adds."""

    def __init__(self, trunk: Streams, parts: Parts) -> None:
        super().__init__(trunk)
        names = trunk.modalities
        adapter = partial(GatedCrossAttention, trunk.width, conv="cdc", grid=trunk.grid)
        self.cross: list[CrossModal] = []
        self.taps = [trunk.taps(block, dropout_confidence) for block in range(trunk.depth)]
        for block, taps in enumerate(self.taps if parts.adapter else ()):
            cross = CrossModal(names, hub(names[0], names), adapter, confidence=taps if parts.uncertainty else None)
            trunk.beside_mlp(block, cross)
            self.cross.append(cross)

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Classify, and report the confidence of the last block."""
        output = super().forward(inputs)
        return output._replace(confidence={m: tap.value for m, tap in self.taps[-1].items()})


class MMDG(System):
    """The seed's losses around `network`, a :class:`Gated` one unless given."""

    def __init__(self, setup: Setup, parts: Parts = SEED, *, network: Fusion | None = None) -> None:
        super().__init__(network or Gated(setup.backbone.streams(setup.channels), parts))
        self.parts = parts
        width = self.network.trunk.width
        self.banks = nn.ModuleDict({m: PrototypeBank(1 + setup.domains, width, decay=0.2) for m in setup.channels})
        rules = {"all": ReGrad(), "none": Sum()}
        rule = rules[parts.regrad] if parts.regrad in rules else OnlyWhere(parts.regrad)
        self.balancer = Rebalancer(self.branches(), rule, weight=WEIGHT, sync=setup.sync)
        self.balancer.register_step_hook(lambda surgery: self.conflicts.append(share_in_conflict(surgery.gram)))

    def branches(self) -> Branches:
        """Each modality with what serves it alone and with the adapters that write into it."""
        trunk, cross = self.network.trunk, self.network.cross
        return Branches(self, {m: [*trunk.own(m), *(a for c in cross for a in c.into(m))] for m in trunk.modalities})

    def prepare(self, train: Looks, dev: Looks, epoch: int) -> None:
        """Eq. 6: the mean feature of each single-side class."""
        for batch in train():
            labels = single_side_labels(batch.live, batch.domain)
            for m, feature in self.network(batch.inputs).features.items():
                self.banks[m].accumulate(feature, labels)
        for bank in self.banks.values():
            bank.commit()

    def loss(self, output: Output, batch: Batch, progress: float) -> Tensor:
        """Cross-entropy, joined by the surgery of the prototype losses."""
        self.branch_losses = self.unimodal(output, batch)
        loss = super().loss(output, batch, progress)
        if not self.parts.ssp:
            return loss
        return self.balancer(loss, self.branch_losses, confidence=self.trust(output))

    def unimodal(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Eq. 7, of each modality."""
        labels = single_side_labels(batch.live, batch.domain)
        return {
            m: prototypical_cross_entropy(feature, labels, self.banks[m].prototypes, seen=self.banks[m].seen)
            for m, feature in output.features.items()
        }

    def trust(self, output: Output) -> dict[str, Tensor] | None:
        """ReGrad's U: the confidence of the class tokens (released code)."""
        return {m: c[:, 0] for m, c in output.confidence.items()} if self.parts.uncertainty else None


def share_in_conflict(gram: Tensor) -> Tensor:
    """Of all pairs of modalities with a gradient on the same granule, the share whose inner product is not positive."""
    gram = gram[:, 1:, 1:]
    there = gram.diagonal(dim1=1, dim2=2) > 0
    pairs = (there[:, :, None] & there[:, None, :]).triu(1)
    return (pairs & (gram <= 0)).sum() / pairs.sum().clamp(min=1)  # 0 before zero-initialised adapters have moved
