"""Coefficients: of gradients under SGD, of updates under Adam."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from balancekit import modulation
from balancekit.losses import unimodal_loss
from balancekit.uncertainty import linear_dropout_moments
from efficacy_parts.training import Run, hits

from .joint import Joint, JointAndUnimodal


class OGM(Joint):
    """In the first half of the training, as the authors do."""

    def __init__(self, run: Run, alpha: float) -> None:
        super().__init__(run)
        self.ogm, self.on = modulation.OGM(alpha), True

    def begin(self, epoch: int) -> None:
        self.on = not self.past(epoch, 0.5)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        loss = super().loss(z, y, rows)
        if self.on:
            self.run.act(z, self.ogm(modulation.slice_logits(self.model.head, z), y), loss)
        return loss


class OGMGE(OGM):
    """With noise on the gradients of the encoders."""

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        self.k = self.ogm(modulation.slice_logits(self.model.head, z), y)
        return Joint.loss(self, z, y, rows)

    def after_backward(self) -> None:
        if self.on:
            modulation.scale_gradients(self.run.branches, self.k, noise=True)
            if self.run.optimizer_name == "Adam":
                modulation.scale_updates(self.run.optimizer, self.k)


class OPM(Joint):
    """After a twentieth of the training, in 0.7 of the steps."""

    def __init__(self, run: Run, base: float) -> None:
        super().__init__(run)
        self.opm, self.on = modulation.OPM(base), False

    def begin(self, epoch: int) -> None:
        self.on = self.past(epoch, 0.05)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        if self.on:
            z = modulation.drop_features(z, self.opm(modulation.slice_logits(self.model.head, z), y), share=0.7)
        return super().loss(z, y, rows)


class AGM(Joint):
    def __init__(self, run: Run, alpha: float) -> None:
        super().__init__(run)
        self.agm = modulation.AGM(len(run.modalities), alpha, cap=10.0 if len(run.modalities) == 2 else 7.0)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        logits = modulation.shapley_logits(self.model.fuse, z)
        loss = F.cross_entropy(torch.stack([*logits.values()]).sum(0), y)
        self.run.act(logits, self.agm(logits, y), loss)
        return loss


class MLB(JointAndUnimodal):
    """Its loss is that of joint + unimodal."""

    def __init__(self, run: Run, alpha: float) -> None:
        super().__init__(run, weight=1.0)
        self.mlb = modulation.MLB(alpha)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        logits = self.model.alone(z)
        loss = F.cross_entropy(self.model.fuse(z), y) + unimodal_loss(logits, y)
        self.run.act(z, self.mlb(logits, y), loss)
        return loss


class ARL(JointAndUnimodal):
    """After a twentieth of the training, with unimodal losses from the start."""

    def __init__(self, run: Run, weight: float) -> None:
        super().__init__(run, weight)
        self.arl, self.starts = modulation.ARL(), False

    def begin(self, epoch: int) -> None:
        self.starts = self.past(epoch, 0.05)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        loss = super().loss(z, y, rows)
        if self.starts:
            self.run.act(z, self.arl(self.model.alone(z), y), loss)
        return loss


class Epistemic(Joint):
    """u: the standard deviation of a modality's logits under dropout before the fused head, in closed form."""

    def __init__(self, run: Run, rate: float) -> None:
        super().__init__(run)
        self.modulator = modulation.EpistemicModulation(rate)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        loss = super().loss(z, y, rows)
        with torch.no_grad():
            parts = zip(z.items(), self.model.head.weight.chunk(len(z), 1), strict=True)
            u = {m: linear_dropout_moments(each, w)[1].mean(1).sqrt() for (m, each), w in parts}
        k = self.modulator(u)
        if self.run.optimizer_name == "Adam":  # it would cancel the mean, but not what differs between samples
            mean = {m: each.mean() for m, each in k.items()}
            modulation.scale_updates(self.run.optimizer, mean)
            k = {m: each / mean[m] for m, each in k.items()}
        modulation.modulate(z, k, loss)
        return loss


class Held(Joint):
    """Coefficients that are renewed once an epoch."""

    k: dict[str, Tensor] | None = None

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        loss = super().loss(z, y, rows)
        if self.k is not None:
            self.carry_out(z, loss)
        return loss

    def carry_out(self, z: dict[str, Tensor], loss: Tensor) -> None:
        assert self.k is not None
        modulation.scale_updates(self.run.optimizer, self.k)

    @torch.no_grad()
    def accuracy(self, without: str | None = None) -> float:
        """On the validation part."""
        z, y = self.run.features(self.run.split.val), self.run.split.labels[self.run.split.val]
        if without is not None:
            z[without] = torch.zeros_like(z[without])
        return hits(self.logits(z), y)

    @torch.no_grad()
    def accuracies(self, alone: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, float]:
        """On the validation part, of each modality by what it says alone."""
        z, y = self.run.features(self.run.split.val), self.run.split.labels[self.run.split.val]
        return {m: hits(o, y) / 100 for m, o in alone(z).items()}


class PDMP(Held):
    def __init__(self, run: Run, dominant: float, rest: float) -> None:
        super().__init__(run)
        assert run.solo is not None
        self.k = modulation.pdmp_coefficient(run.solo.accuracy, dominant=dominant, rest=rest)

    def carry_out(self, z: dict[str, Tensor], loss: Tensor) -> None:
        assert self.k is not None
        self.run.act(z, self.k, loss)


class MILES(Held):
    def __init__(self, run: Run, threshold: float) -> None:
        super().__init__(run)
        self.threshold = threshold

    def begin(self, epoch: int) -> None:
        if epoch:
            used = modulation.utilisation(self.accuracy(), {m: self.accuracy(m) for m in self.run.modalities})
            self.k = modulation.miles_coefficient(used, threshold=self.threshold)


class MSLR(Held):
    """A lower rate for the modality that is best alone: 0.9 and 1.1 in the released code."""

    def __init__(self, run: Run, spread: float) -> None:
        super().__init__(run)
        assert run.solo is not None
        best = max(run.solo.accuracy, key=lambda m: run.solo.accuracy[m])  # type: ignore[union-attr]
        self.mslr = modulation.MSLR({m: 1 - spread if m == best else 1 + spread for m in run.modalities})

    def begin(self, epoch: int) -> None:
        if epoch == 0:
            return
        self.k = self.mslr(self.accuracies(partial(modulation.slice_logits, self.model.head)))


class CGGM(Held):
    """Its magnitude part; its heads learn on detached features, at the rate of all."""

    def __init__(self, run: Run, scale: float) -> None:
        super().__init__(run)
        self.cggm = modulation.CGGM(run.modalities, scale)

    def begin(self, epoch: int) -> None:
        self.k = self.cggm(self.accuracies(self.model.alone))

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        detached = {m: each.detach() for m, each in z.items()}
        return super().loss(z, y, rows) + unimodal_loss(self.model.alone(detached), y)

    def carry_out(self, z: dict[str, Tensor], loss: Tensor) -> None:
        assert self.k is not None
        self.run.act(z, self.k, loss)


class SMP(Joint):
    """The modality with the surest teacher stays as it is in the first part of the training."""

    def __init__(self, run: Run, share: float) -> None:
        super().__init__(run)
        self.smp, self.share, self.on = modulation.SMP(), share, True

    def begin(self, epoch: int) -> None:
        self.on = not self.past(epoch, self.share)

    def loss(self, z: dict[str, Tensor], y: Tensor, rows: Tensor) -> Tensor:
        assert self.run.solo is not None
        if self.on:
            self.k = self.smp({m: o[rows] for m, o in self.run.solo.logits.items()}, y)
        return super().loss(z, y, rows)

    def after_backward(self) -> None:
        if self.on:
            modulation.freeze(self.run.branches, self.k)
