"""MMDG's network, trained in five ways, that looks at itself every few steps."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from fas.data import Batch, FaceData
from fas.samples import Samples
from fas.systems import Setup
from fas.systems.base import Looks, Output
from fas.systems.mmdg import MMDG, Parts
from torch import Tensor

from balancekit import PrototypeBank, prototypical_cross_entropy, single_side_labels

from .measures import explained, gap

EVERY = 10  # steps
MEASURES = ("class", "domain", "modality", "gap")


class Seen(NamedTuple):
    """Data to look at, which nobody trains on."""

    inputs: dict[str, Tensor]
    live: Tensor
    domain: Tensor
    known: Tensor  # bool "b": the people whose means are the prototypes


def every_second(dev: Samples) -> Seen:
    batch = FaceData(dev)[range(0, len(dev.live), 2)]
    return Seen(batch.inputs, batch.live, batch.domain, dev.identity[::2] % 2 == 0)


class Measured(MMDG):
    """MMDG with a curve for each measure: steps, and values."""

    def __init__(self, setup: Setup, parts: Parts, seen: Seen) -> None:
        super().__init__(setup, parts)
        self.seen, self.step = seen, 0
        self.steps: list[int] = []
        self.curves: dict[str, list[float]] = {name: [] for name in MEASURES}

    def loss(self, output: Output, batch: Batch, progress: float) -> Tensor:
        if self.step % EVERY == 0:
            self.look()
        self.step += 1
        return super().loss(output, batch, progress)

    @torch.no_grad()
    def look(self) -> None:
        self.eval()
        seen, features = self.seen, self.network(self.seen.inputs).features
        self.train()
        self.steps.append(self.step)
        for name, labels in (("class", seen.live.long()), ("domain", single_side_labels(seen.live, seen.domain))):
            shares = [explained(z, labels, seen.known) for z in features.values()]
            self.curves[name].append(sum(shares) / len(shares))
        modality = torch.arange(len(features)).repeat_interleave(len(seen.live))
        every, known = torch.cat([*features.values()]), seen.known.repeat(len(features))
        self.curves["modality"].append(explained(every, modality, known))
        self.curves["gap"].append(gap([*features.values()]))


class Modalities(Measured):
    """The same cross-entropy in SSP's place, with the modality for a label."""

    def __init__(self, setup: Setup, parts: Parts, seen: Seen) -> None:
        super().__init__(setup, parts, seen)
        self.bank = PrototypeBank(len(setup.channels), self.network.trunk.width, decay=0.2)

    def prepare(self, train: Looks, dev: Looks, epoch: int) -> None:
        for batch in train():
            for m, z in enumerate(self.network(batch.inputs).features.values()):
                self.bank.accumulate(z, torch.full((len(z),), m))
        self.bank.commit()

    def unimodal(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            m: prototypical_cross_entropy(z, torch.full((len(z),), i), self.bank.prototypes, seen=self.bank.seen)
            for i, (m, z) in enumerate(output.features.items())
        }


SYSTEMS: dict[str, Callable[..., Measured]] = {
    "cross-entropy alone": partial(Measured, parts=Parts(ssp=False)),
    "+ SSP, added up": partial(Measured, parts=Parts(regrad="none")),
    "+ SSP, ReGrad": partial(Measured, parts=Parts()),
    "+ modality labels, added up": partial(Modalities, parts=Parts(regrad="none")),
    "+ modality labels, ReGrad": partial(Modalities, parts=Parts()),
}
