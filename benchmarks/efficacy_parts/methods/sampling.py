"""Which samples are drawn, and what happens between epochs."""

import copy
from collections.abc import Iterator
from itertools import combinations

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from balancekit.modulation import slice_logits
from balancekit.sampling import remix_assign, remix_batches, smv_copies, smv_plan, smv_values, smv_weights
from balancekit.schedules import purity, relearn_strength, soft_reset
from efficacy_parts.training import BATCH, Run

from .joint import Joint


class SMV(Joint):
    """After a twentieth of the training. Of the plan of an epoch as many rows are drawn as there are samples."""

    def __init__(self, run: Run, by: str) -> None:
        super().__init__(run)
        self.by = by

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        train = self.run.split.train
        if not self.past(epoch, 0.05) or epoch == 0:
            yield from super().batches(epoch)
            return
        values = self.values(train)
        copies = smv_copies(values)
        if self.by == "modality":
            copies = torch.bernoulli(smv_weights(values).expand(len(train), -1)).long()
        index, keep = smv_plan(copies)
        some = torch.randperm(len(index), generator=self.run.order)[: len(train)]
        for chosen in self.run.shuffled(some):
            yield train[index[chosen]], keep[chosen]

    @torch.no_grad()
    def values(self, rows: Tensor) -> Tensor:
        z, names = self.run.features(rows), self.run.modalities
        sets = [s for size in range(1, len(names) + 1) for s in combinations(names, size)]
        nothing = {m: torch.zeros_like(each) for m, each in z.items()}
        predictions = {s: self.logits({**nothing, **{m: z[m] for m in s}}).argmax(1) for s in sets}
        return smv_values(predictions, self.run.split.labels[rows])


class Remix(Joint):
    """After a time of joint training, each sample is learnt from the modality that it is hardest for, and no other."""

    def __init__(self, run: Run, warm: float) -> None:
        super().__init__(run)
        self.warm = warm

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        if not self.past(epoch, self.warm):
            yield from super().batches(epoch)
            return
        train = self.run.split.train
        with torch.no_grad():
            assignment = remix_assign(slice_logits(self.model.head, self.run.features(train)))
        everyone = torch.eye(len(self.run.modalities), dtype=torch.bool)
        for batch in remix_batches(assignment, BATCH, generator=self.run.order):
            yield train[batch], everyone[assignment[batch]]


class Relearn(Joint):
    """D&R: at a third and at two thirds of the training, encoders go back as far as they have learnt by heart."""

    def __init__(self, run: Run, rate: float) -> None:
        super().__init__(run)
        self.rate = rate
        self.initial = {m: copy.deepcopy(e.state_dict()) for m, e in self.model.encoders.items()}

    def begin(self, epoch: int) -> None:
        third = self.run.data.epochs // 3
        if epoch not in (third, 2 * third):
            return
        split = self.run.split
        parts = split.train[: len(split.val)], split.val  # as many: purity grows with fewer
        features = [self.run.features(rows) for rows in parts]
        for m, encoder in self.model.encoders.items():
            pure = [self.purity(z[m], split.labels[rows]) for z, rows in zip(features, parts, strict=True)]
            soft_reset(encoder, self.initial[m], relearn_strength(pure[0], pure[1], rate=self.rate))

    def purity(self, z: Tensor, y: Tensor) -> Tensor:
        clusters = KMeans(self.run.data.classes, n_init=10, random_state=self.run.seed).fit_predict(z.numpy())
        return purity(torch.tensor(clusters), y)
