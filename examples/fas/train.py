"""Training and scoring of one system: the seed method, with each of its parts on a switch.

One epoch: an exact pass for the prototypes (Eq. 6), then for each batch cross-entropy on the fused head, the
single-side prototypical loss of each modality (Eq. 7), and ReGrad between those (Eq. 5 and 8).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from balancekit import PrototypeBank, Rebalancer, ReGrad, Sum, prototypical_cross_entropy, single_side_labels

from .data import BalancedBatches, FaceData
from .model import FaceNet
from .samples import DOMAINS, MODALITIES, Samples


class System(NamedTuple):
    """Which parts are on."""

    modalities: tuple[str, ...] = MODALITIES
    adapter: bool = True  # U-Adapters between the encoders
    uem: bool = True  # their gate, and ReGrad's U
    ssp: bool = True  # the unimodal prototype losses
    regrad: bool = True  # surgery between those; without it they are added up


class Options(NamedTuple):
    """How to train."""

    epochs: int = 3
    batch: int = 32
    lr: float = 1.5e-3
    weight: float = 0.3  # λ of Eq. 8
    seed: int = 0


class History(NamedTuple):
    """What training showed, step by step."""

    losses: dict[str, list[float]]  # of each branch's prototypes, whether trained on or not
    fastest: dict[str, int]  # steps in which a branch had the lowest of them
    conflicts: list[float]  # in each step with surgery, the share of pairs of gradients that conflict


class Fitted(NamedTuple):
    """A trained network and its history."""

    model: FaceNet
    history: History


def fit(
    system: System,
    samples: Samples,
    options: Options,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Callable[[int], object] = lambda steps: None,
) -> Fitted:
    """Train `system` on `samples`; after each epoch the state is written to `checkpoint`, whole or not at all."""
    torch.manual_seed(options.seed)
    shuffle = torch.Generator().manual_seed(options.seed)
    model = FaceNet(system.modalities, adapters=system.adapter, gated=system.uem)
    banks = torch.nn.ModuleDict({m: PrototypeBank(1 + len(DOMAINS), model.width, decay=0.2) for m in system.modalities})
    data = FaceData(samples, generator=shuffle)
    batches = BalancedBatches(samples.domain, samples.live, size=options.batch, generator=shuffle)
    optimizer = torch.optim.AdamW(model.branches().param_groups(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * len(batches))
    rule = ReGrad() if system.regrad else Sum()
    balancer = Rebalancer(model.branches(), rule, weight=options.weight)
    history = History({m: [] for m in system.modalities}, dict.fromkeys(system.modalities, 0), [])
    conflicts: list[Tensor] = []
    balancer.register_step_hook(lambda surgery: conflicts.append(share_in_conflict(surgery.gram)))

    first = 0
    parts = {"model": model, "banks": banks, "optimizer": optimizer, "schedule": schedule}
    if resume and checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["run"] != repr((system, options, len(samples.live))):
            raise ValueError(f"resume: expected {checkpoint} to hold {system} with {options}, found {state['run']}")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        history, first = History(*state["history"]), state["epoch"]
        shuffle.set_state(state["shuffle"])
        torch.set_rng_state(state["random"])
        progress(first * len(batches))

    for epoch in range(first, options.epochs):
        update_prototypes(model, banks, samples)
        model.train()
        for rows in batches:
            batch = data[rows]
            output = model(batch.inputs)
            labels = single_side_labels(batch.live, batch.domain)
            losses = {
                m: prototypical_cross_entropy(feature, labels, banks[m].prototypes, seen=banks[m].seen)
                for m, feature in output.features.items()
            }
            loss = F.cross_entropy(output.logits, batch.live.long())
            if system.ssp:
                trust = {m: c[:, 0] for m, c in output.confidence.items()} if system.uem else None
                loss = balancer(loss, losses, confidence=trust)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            values = {m: value.item() for m, value in losses.items()}
            history.fastest[min(values, key=values.__getitem__)] += 1
            for m, value in values.items():
                history.losses[m].append(value)
            progress(1)
        history.conflicts.extend(value.item() for value in conflicts)
        conflicts.clear()
        if checkpoint is not None:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"epoch": epoch + 1, "history": tuple(history), "run": repr((system, options, len(samples.live)))}
            write(state | {"shuffle": shuffle.get_state(), "random": torch.get_rng_state()}, checkpoint)
    return Fitted(model, history)


def share_in_conflict(gram: Tensor) -> Tensor:
    """Of all pairs of modalities with a gradient on the same granule, the share whose inner product is not positive."""
    gram = gram[:, 1:, 1:]
    there = gram.diagonal(dim1=1, dim2=2) > 0
    pairs = (there[:, :, None] & there[:, None, :]).triu(1)
    return (pairs & (gram <= 0)).sum() / pairs.sum().clamp(min=1)  # 0 before zero-initialised adapters have moved


@torch.no_grad()
def update_prototypes(model: FaceNet, banks: torch.nn.ModuleDict, samples: Samples) -> None:
    """Eq. 6: the mean class token of each single-side class over all of `samples`, in evaluation mode."""
    model.eval()
    for batch in FaceData(samples).batches(256):
        labels = single_side_labels(batch.live, batch.domain)
        for m, feature in model(batch.inputs).features.items():
            banks[m].accumulate(feature, labels)
    for bank in banks.values():
        bank.commit()


@torch.no_grad()
def score(model: FaceNet, samples: Samples) -> tuple[Tensor, dict[str, Tensor]]:
    """How live each sample looks (log-odds "b"), and the confidence of its patches "b 64" by modality."""
    model.eval()
    outputs = [model(batch.inputs) for batch in FaceData(samples).batches(256)]
    scores = torch.cat([output.logits[:, 1] - output.logits[:, 0] for output in outputs])
    return scores, {m: torch.cat([output.confidence[m][:, 1:] for output in outputs]) for m in model.modalities}


def write(state: dict, path: Path) -> None:
    """Save so that a reader finds the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)
