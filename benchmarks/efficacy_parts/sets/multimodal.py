"""What a data set is to the study: views by modality, classes, and a rule by which samples are set aside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Draw = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]  # rows → rows to keep, rows set aside
EXTREME = 10.0  # standard deviations, beyond which values are cut


class Split(NamedTuple):
    """One division of the samples. Views are standardised with statistics of `train`."""

    views: dict[str, Tensor]
    labels: Tensor
    train: Tensor  # rows
    val: Tensor  # a tenth of what is not tested, for methods that ask for it; nobody trains on it
    test: Tensor


@dataclass
class Multimodal:
    """A set. ``draw`` sets a part of the given rows aside in the way in which the test part is set aside."""

    name: str
    views: Mapping[str, Tensor]  # "n …"
    labels: Tensor  # "n"
    draw: Draw
    epochs: int
    axes: tuple[int, ...] = (0,)  # over which a view is standardised
    note: str = ""

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def split(self, seed: int, *, tuning: bool = False) -> Split:
        """The division of a seed. For `tuning` its test part is left out, and another one set aside of the rest."""
        generator = torch.Generator().manual_seed(seed)
        rest, test = self.draw(torch.arange(len(self.labels)), generator)
        if tuning:
            rest, test = self.draw(rest, generator)
        rest = rest[torch.randperm(len(rest), generator=generator)]
        val, train = rest[: len(rest) // 10], rest[len(rest) // 10 :]
        views = {}
        for m, x in self.views.items():
            mean, deviation = x[train].mean(self.axes, keepdim=True), x[train].std(self.axes, keepdim=True)
            views[m] = ((x - mean) / (deviation + 1e-6)).clamp(-EXTREME, EXTREME)
        return Split(views, self.labels, train, val, test)


def stratified(labels: Tensor, share: float = 0.3) -> Draw:
    """A share of each class, at random."""

    def draw(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        aside = torch.zeros(len(labels), dtype=torch.bool)
        for c in labels[rows].unique():
            of = rows[labels[rows] == c]
            aside[of[torch.randperm(len(of), generator=generator)][: max(1, round(share * len(of)))]] = True
        return rows[~aside[rows]], rows[aside[rows]]

    return draw
