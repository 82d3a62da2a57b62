"""Other objectives."""

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from balancekit import PrototypeBank
from balancekit.losses import (
    confidence_ranking_loss,
    cosine_logits,
    decouple,
    feature_distillation,
    gblend_weights,
    lfm_loss,
    lfm_schedule,
    pmr_loss,
    tcmax_loss,
    unimodal_distillation,
    unimodal_loss,
)
from balancekit.modulation import slice_logits
from efficacy_parts.network import WIDTH
from efficacy_parts.training import Run

from .joint import Joint
from .modulation import SMP


class PMR(Joint):
    """Banks from a tenth of the data, once an epoch; the entropy term in the first fifth of the training."""

    def __init__(self, run: Run, alpha: float) -> None:
        super().__init__(run)
        self.alpha, self.mu = alpha, 0.0
        self.banks = {m: PrototypeBank(run.data.classes, WIDTH, decay=0.2) for m in run.modalities}

    def begin(self, epoch: int) -> None:
        self.mu = 1e-2 if not self.past(epoch, 0.2) else 0.0
        if epoch:
            train = self.run.split.train
            rows = train[torch.randperm(len(train))[: len(train) // 10]]
            for m, z in self.run.features(rows).items():
                self.banks[m].update(z, self.run.split.labels[rows])

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return super().loss(z, y, rows) + pmr_loss(z, y, self.banks, alpha=self.alpha, mu=self.mu)


class TCMax(Joint):
    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return tcmax_loss(slice_logits(self.model.head, z), y)


class Cosine(Joint):
    """MMCosine."""

    def __init__(self, run: Run, scale: float) -> None:
        super().__init__(run)
        self.scale = scale

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(z), y)

    def logits(self, z: dict[str, Tensor]) -> Tensor:
        weights = dict(zip(z, self.model.head.weight.chunk(len(z), 1), strict=True))
        return torch.stack([*cosine_logits(z, weights, scale=self.scale).values()]).sum(0)


class CML(Joint):
    """Sets of modalities by features set to zero."""

    def __init__(self, run: Run, weight: float) -> None:
        super().__init__(run)
        self.weight = weight
        names = run.modalities
        self.sets = [s for size in range(1, len(names) + 1) for s in combinations(names, size)]

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        kept = [torch.cat([each if m in s else torch.zeros_like(each) for m, each in z.items()], 1) for s in self.sets]
        logits = dict(zip(self.sets, self.model.head(torch.cat(kept)).chunk(len(kept)), strict=True))
        ranking = confidence_ranking_loss({s: o.softmax(1).amax(1) for s, o in logits.items()})
        return F.cross_entropy(logits[self.sets[-1]], y) + self.weight * ranking


class UMT(Joint):
    def __init__(self, run: Run, weight: float) -> None:
        super().__init__(run)
        self.weight = weight

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        assert self.run.solo is not None
        teachers = {m: each[rows] for m, each in self.run.solo.features.items()}
        return super().loss(z, y, rows) + self.weight * feature_distillation(z, teachers)


class G2D(SMP):
    """Distillation and prioritisation."""

    def __init__(self, run: Run, weight: float) -> None:
        super().__init__(run, share=0.3)
        self.weight = weight

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        assert self.run.solo is not None
        teachers = {m: each[rows] for m, each in self.run.solo.features.items()}
        logits = {m: o[rows] for m, o in self.run.solo.logits.items()}
        return super().loss(z, y, rows) + self.weight * unimodal_distillation(self.model.alone(z), logits, z, teachers)


class DGL(Joint):
    def __init__(self, run: Run, weight: float) -> None:
        super().__init__(run)
        self.weight = weight

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return super().loss(decouple(z), y, rows) + unimodal_loss(self.model.alone(z), y, weight=self.weight)


class GBlend(Joint):
    """On-line: weights of the modalities' losses and of the fused one, renewed once an epoch."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.weights = torch.full((len(run.modalities) + 1,), 1 / (len(run.modalities) + 1))
        self.before: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def begin(self, epoch: int) -> None:
        split = self.run.split
        parts = split.train[: len(split.val)], split.val
        now = tuple(self.losses(self.run.features(rows), split.labels[rows]) for rows in parts)
        if self.before is not None:
            self.weights = gblend_weights(self.before[0], now[0], self.before[1], now[1], online=True)
        self.before = now[0], now[1]

    def losses(self, z: dict[str, Tensor], y: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(o, y) for o in (*self.model.alone(z).values(), self.model.fuse(z))])

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return self.weights @ self.losses(z, y)


class LFM(Joint):
    """The mean of the heads' logits, on a fixed schedule."""

    def __init__(self, run: Run, start: float) -> None:
        super().__init__(run)
        self.start, self.alpha = start, start

    def begin(self, epoch: int) -> None:
        self.alpha = lfm_schedule(epoch, self.run.data.epochs, start=self.start, end=1 - self.start)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        return lfm_loss(self.model.alone(z), y, self.alpha)

    def logits(self, z: dict[str, Tensor]) -> Tensor:
        return torch.stack([*self.model.alone(z).values()]).mean(0)
