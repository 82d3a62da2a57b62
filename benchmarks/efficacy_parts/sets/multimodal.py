"""What a data set is to the study: views by modality, classes, and a rule by which samples are set aside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Draw = Callable[[Tensor, bool, torch.Generator], tuple[Tensor, Tensor]]
"""Rows, and whether they are to be tested or validated → rows to keep, rows set aside."""

EXTREME = 10.0  # standard deviations, beyond which values are cut


class Split(NamedTuple):
    """One division of the samples. Views are standardised with statistics of `train`."""

    views: dict[str, Tensor]
    labels: Tensor
    train: Tensor  # rows
    val: Tensor  # set aside as the test part is, but smaller: for tuning and for methods that ask; nobody trains on it
    test: Tensor


@dataclass
class Multimodal:
    """A set, and the rule by which a part of it is set aside."""

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

    def split(self, seed: int) -> Split:
        """The division of a seed."""
        generator = torch.Generator().manual_seed(seed)
        rest, test = self.draw(torch.arange(len(self.labels)), True, generator)
        train, val = self.draw(rest, False, generator)
        train = train[torch.randperm(len(train), generator=generator)]
        views = {}
        for m, x in self.views.items():
            mean, deviation = x[train].mean(self.axes, keepdim=True), x[train].std(self.axes, keepdim=True)
            views[m] = ((x - mean) / (deviation + 1e-6)).clamp(-EXTREME, EXTREME)
        return Split(views, self.labels, train, val, test)


def stratified(labels: Tensor) -> Draw:
    """30 % of each class to the test part, then 10 % to the validation part, at random."""

    def draw(rows: Tensor, test: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        aside = torch.zeros(len(labels), dtype=torch.bool)
        for c in labels[rows].unique():
            of = rows[labels[rows] == c]
            aside[of[torch.randperm(len(of), generator=generator)][: round((0.3 if test else 0.1) * len(of))]] = True
        return rows[~aside[rows]], rows[aside[rows]]

    return draw
