"""What the loops train: a small model of three modalities, and what balancekit adds to its loss.

A journey makes of a model its optimizer and its loss. The loss is called as ``loss(forward, x, y)``, where forward is
the model or whatever wraps it, and gives one scalar, which a loop treats as any other.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from balancekit import OGM, Branches, CrossModal, GatedCrossAttention, PrototypeBank, Rebalancer, ReGrad, modulate
from balancekit import dropout_confidence as confidence
from balancekit import prototypical_cross_entropy as pce
from balancekit.adapters import complete
from balancekit.losses import pmr_loss
from balancekit.modulation import scale_updates, slice_logits

WIDTHS = {"rgb": 12, "depth": 6, "ir": 4}
CLASSES, DIM, TOKENS, BATCH, STEPS = 3, 16, 5, 16, 12
DEVICE = (
    torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
)

X = dict[str, Tensor]  # tokens of each modality, "b n width"
Loss = Callable[[Callable[[X], Tensor], X, Tensor], Tensor]
Journey = Callable[["Streams"], tuple[Optimizer, Loss]]


class Streams(nn.Module):
    """An encoder a modality, adapters between their tokens if `coupled`, an exit each, and a head on all features."""

    def __init__(self, *, coupled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({m: nn.Sequential(nn.Linear(w, DIM), nn.GELU()) for m, w in WIDTHS.items()})
        adapter = partial(GatedCrossAttention, DIM, heads=2, dropout=0.0)
        self.cross = CrossModal([*WIDTHS], complete([*WIDTHS]), adapter) if coupled else None
        self.exits = nn.ModuleDict({m: nn.Linear(DIM, DIM) for m in WIDTHS})
        self.head = nn.Linear(DIM * len(WIDTHS), CLASSES)
        self.to(DEVICE)

    def forward(self, x: X) -> Tensor:
        tokens = {m: encoder(x[m]) for m, encoder in self.encoders.items()}
        if self.cross is not None:
            deltas = self.cross(tokens)
            tokens = {m: t + deltas[m] for m, t in tokens.items()}
        return self.head(torch.cat([out(tokens[m].mean(1)) for m, out in self.exits.items()], 1))

    def branches(self) -> Branches:
        """The exit comes first, as its output is the feature; adapters belong to the modality that receives."""
        into = {m: [] if self.cross is None else self.cross.into(m) for m in WIDTHS}
        return Branches(self, {m: [self.exits[m], self.encoders[m], *into[m]] for m in WIDTHS})


def regrad(model: Streams, **options: Any) -> tuple[Optimizer, Loss]:
    """A prototypical loss a branch, and ReGrad between them."""
    branches = model.branches()
    balancer = Rebalancer(branches, ReGrad(), weight=0.3, sync=True, **options)
    banks = {m: PrototypeBank(CLASSES, DIM, decay=0.9).to(DEVICE) for m in branches}
    model.banks = nn.ModuleDict(banks)  # so that they are in its checkpoint

    def loss(forward: Callable[[X], Tensor], x: X, y: Tensor) -> Tensor:
        with branches.capture() as features:
            logits = forward(x)
        for m, z in features.items():
            banks[m].update(z, y)
        losses = {m: pce(z, y, banks[m].prototypes, seen=banks[m].seen) for m, z in features.items()}
        return balancer(F.cross_entropy(logits, y), losses, confidence={m: confidence(z) for m, z in features.items()})

    return SGD(model.parameters(), lr=0.1, momentum=0.9), loss


def pmr(model: Streams) -> tuple[Optimizer, Loss]:
    """PMR: prototypes speed the slow modality up."""
    branches = model.branches()
    banks = {m: PrototypeBank(CLASSES, DIM, decay=0.9).to(DEVICE) for m in branches}
    model.banks = nn.ModuleDict(banks)  # so that they are in its checkpoint

    def loss(forward: Callable[[X], Tensor], x: X, y: Tensor) -> Tensor:
        with branches.capture() as features:
            logits = forward(x)
        for m, z in features.items():
            banks[m].update(z, y)
        return F.cross_entropy(logits, y) + pmr_loss(features, y, banks, mu=1e-2)

    return SGD(model.parameters(), lr=0.1, momentum=0.9), loss


def ogm(model: Streams) -> tuple[Optimizer, Loss]:
    """OGM: a smaller gradient at the feature of the modality that is ahead."""
    branches, modulation = model.branches(), OGM(alpha=0.8)

    def loss(forward: Callable[[X], Tensor], x: X, y: Tensor) -> Tensor:
        with branches.capture() as features:
            logits = forward(x)
        loss = F.cross_entropy(logits, y)
        modulate(features, modulation(slice_logits(model.head, features), y), loss)
        return loss

    return SGD(model.parameters(), lr=0.1, momentum=0.9), loss


def ogm_under_adam(model: Streams) -> tuple[Optimizer, Loss]:
    """OGM under Adam, which divides a factor on gradients out again: the update is scaled instead."""
    branches, modulation = model.branches(), OGM(alpha=0.8)
    optimizer = Adam(branches.param_groups(), lr=3e-3)

    def loss(forward: Callable[[X], Tensor], x: X, y: Tensor) -> Tensor:
        with branches.capture() as features:
            logits = forward(x)
        scale_updates(optimizer, modulation(slice_logits(model.head, features), y))
        return F.cross_entropy(logits, y)

    return optimizer, loss


def batches(steps: int = STEPS, seed: int = 0) -> list[tuple[X, Tensor]]:
    """Labels that rgb shows best."""
    g = torch.Generator().manual_seed(0)
    signal = {m: torch.randn(CLASSES, w, generator=g) * w / 32 for m, w in WIDTHS.items()}
    g.manual_seed(seed + 1)

    def batch() -> tuple[X, Tensor]:
        y = torch.randint(CLASSES, (BATCH,), generator=g)
        x = {m: s[y][:, None] + torch.randn(BATCH, TOKENS, s.shape[1], generator=g) for m, s in signal.items()}
        return {m: each.to(DEVICE) for m, each in x.items()}, y.to(DEVICE)

    return [batch() for _ in range(steps)]


def part(rank: int, size: int, x: X, y: Tensor) -> tuple[X, Tensor]:
    """What one of several processes sees of a batch."""
    mine = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
    return {m: each[mine] for m, each in x.items()}, y[mine]


def run(train: Callable[[Streams, Journey], object], journey: Journey = regrad) -> None:
    """Train with ReGrad, and say how well that went."""
    model = Streams(coupled=False)
    train(model, journey)
    with torch.no_grad():
        hits = torch.cat([model(x).argmax(1) == y for x, y in batches(seed=1)])
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(f"{hits.float().mean():.1%} right")
