"""One training of one method, and what it is worth afterwards."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from balancekit import Branches, modulate
from balancekit.diagnostics import probe_accuracy
from balancekit.modulation import scale_updates

from .network import Late
from .sets import Multimodal, Split

REVISION = 1  # of all that decides a training; results of another one are not read
BATCH = 128
RATES = {"SGD": 0.02, "Adam": 1e-3}  # usual ones; tuning also tries three times as much, and more for joint training
PROBED = 1000  # samples that a probe is fitted on, at most


class Solo(NamedTuple):
    """What encoders say that were trained alone: of all samples, by modality."""

    features: dict[str, Tensor]
    logits: dict[str, Tensor]
    accuracy: dict[str, float]  # on the validation part


@dataclass
class Run:
    """All that a method gets: data, a new model, an optimizer, and what encoders reach that were trained alone."""

    data: Multimodal
    split: Split
    optimizer_name: str
    seed: int
    rate: float = 1.0  # times the learning rate
    solo: Solo | None = None
    model: Late = field(init=False)
    branches: Branches = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.model = Late({m: x.shape[1:] for m, x in self.split.views.items()}, self.data.classes)
        self.branches = Branches(self.model, {m: f"encoders.{m}" for m in self.split.views})
        groups = self.branches.param_groups(lr=self.rate * RATES[self.optimizer_name])
        if self.optimizer_name == "SGD":
            self.optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4, fused=True)
        else:
            self.optimizer = torch.optim.Adam(groups, fused=True)
        self.order = torch.Generator().manual_seed(self.seed)  # batches are the same for all methods

    @property
    def modalities(self) -> list[str]:
        return list(self.split.views)

    def shuffled(self, rows: Tensor) -> Iterator[Tensor]:
        """Batches of these rows in random order."""
        yield from rows[torch.randperm(len(rows), generator=self.order)].split(BATCH)

    def act(self, z: dict[str, Tensor], k: dict[str, Tensor], loss: Tensor) -> None:
        """Carry coefficients out: on gradients under SGD, on updates under Adam, which would cancel the former."""
        if self.optimizer_name == "SGD":
            modulate(z, k, loss)
        else:
            scale_updates(self.optimizer, k)

    @torch.no_grad()
    def features(self, rows: Tensor) -> dict[str, Tensor]:
        """As in evaluation."""
        self.model.eval()
        z = self.model.encode({m: x[rows] for m, x in self.split.views.items()})
        self.model.train()
        return z


class Worth(NamedTuple):
    """Of a trained model, in per cent of the test part."""

    accuracy: float
    validation: float  # accuracy on the validation part
    missing: dict[str, float]  # without the named modality
    probe: dict[str, float]  # of logistic regression on the encoder's features
    seconds: float


def train(run: Run, method: Any) -> None:
    """An ordinary loop. What a method adds stands in its own methods."""
    for epoch in range(run.data.epochs):
        method.begin(epoch)
        for rows, keep in method.batches(epoch):
            y = run.split.labels[rows]
            z = run.model.encode({m: x[rows] for m, x in run.split.views.items()})
            if keep is not None:
                z = {m: each * keep[:, i, None] for i, (m, each) in enumerate(z.items())}
            loss = method.loss(z, y, rows)
            run.optimizer.zero_grad()
            loss.backward()
            method.after_backward()
            run.optimizer.step()


def trained(run: Run, make: Any, settings: dict[str, Any]) -> tuple[Any, float]:
    """The method after its training, and the seconds it took."""
    began = time.perf_counter()
    method = make(run, **settings)
    train(run, method)
    return method, time.perf_counter() - began


@torch.no_grad()
def measure(run: Run, method: Any, seconds: float, *, probes: bool = True) -> Worth:
    (z, y), (val_z, val_y) = ((run.features(rows), run.split.labels[rows]) for rows in (run.split.test, run.split.val))
    missing = {m: hits(method.logits({**z, m: torch.zeros_like(z[m])}), y) for m in z}
    accuracy, validation = hits(method.logits(z), y), hits(method.logits(val_z), val_y)
    return Worth(accuracy, validation, missing, probe(run) if probes else {}, seconds)


def probe(run: Run) -> dict[str, float]:
    rows, test = run.split.train[:PROBED], run.split.test
    train_z, test_z, y = run.features(rows), run.features(test), run.split.labels
    return {m: 100 * probe_accuracy(train_z[m], y[rows], test_z[m], y[test]) for m in train_z}


def hits(logits: Tensor, labels: Tensor) -> float:
    """Accuracy in per cent."""
    return 100 * (logits.argmax(1) == labels).float().mean().item()
