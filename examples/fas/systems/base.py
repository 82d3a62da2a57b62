"""What a system is: a network, the loss that trains it, and what it looks at before each epoch."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import Branches
from fas.backbones import Backbone, Streams
from fas.data import Batch

Looks = Callable[[], Iterable[Batch]]  # batches of a data set, made anew at each call


class Setup(NamedTuple):
    """What every system is made from."""

    backbone: Backbone
    channels: dict[str, int]  # of each modality
    domains: int  # how many there are, for what has a class a domain
    sync: bool = False  # several processes train together


class Output(NamedTuple):
    """What a network says of a batch."""

    logits: Tensor  # "b 2": attack, live
    features: Mapping[str, Tensor] = MappingProxyType({})  # of each modality, "b d"
    confidence: Mapping[str, Tensor] = MappingProxyType({})  # of each token, "b n", the class token first


class Fusion(nn.Module):
    """Streams, and one linear head on all features side by side."""

    def __init__(self, trunk: Streams) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.width * len(trunk.modalities), 2)

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Classify normalised images {modality: "b c h w"}."""
        features = self.trunk(inputs)
        return Output(self.head(torch.cat(list(features.values()), -1)), features)


class System(nn.Module):
    """A network and its loss; by itself, cross-entropy on live against attack.

    `branch_losses` keeps the last step's own loss of each branch, where a system has such; `conflicts` the share of
    pairs of gradients in conflict, where it has surgery.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.branch_losses: dict[str, Tensor] = {}
        self.conflicts: list[Tensor] = []

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """What the network says of normalised images {modality: "b c h w"}."""
        return self.network(inputs)

    def loss(self, output: Output, batch: Batch, progress: float) -> Tensor:
        """The loss of a step; `progress` goes from 0 to 1 over the training."""
        return F.cross_entropy(output.logits, batch.live.long())

    def seen_in_training(self, batch: Batch) -> dict[str, Tensor]:
        """The inputs of a training step, for systems that hide some of them."""
        return batch.inputs

    def prepare(self, train: Looks, dev: Looks, epoch: int) -> None:
        """A look at this process's share of the data before each epoch, without augmentation, in evaluation mode."""

    def branches(self) -> Branches | None:
        """Which parameters belong to which modality, where that matters."""
        return None
