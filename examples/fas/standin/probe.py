"""A small network trained in a plain loop, by which the generated faces are judged.

AdamW at 3e-3, cosine schedule, four epochs in batches of 24 balanced over domains and labels, mirrored and jittered;
the last epoch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from fas.backbones import SMALL
from fas.data import BalancedBatches, FaceData
from fas.samples import Samples
from fas.systems.base import Fusion

BATCH, EPOCHS, LOOKS = 24, 4, 4
CHANNELS = {"rgb": 3, "depth": 1, "infrared": 1}


class Probed(NamedTuple):
    """How soon a network knew its own domains, and what it says of each test set."""

    early: float  # area under the curve on development data, the mean of four looks in the first epoch
    scores: list[np.ndarray]  # the probability of a live face, "b" for each test set


def probe(
    train: Samples,
    dev: Samples,
    tests: Sequence[Samples],
    modalities: Sequence[str],
    seed: int,
    *,
    epochs: int = EPOCHS,
) -> Probed:
    """Train one encoder a modality and one head on their features; `dev` is looked at in the first epoch only."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Fusion(SMALL.streams({m: CHANNELS[m] for m in modalities}))
    data = FaceData(train, generator=generator)
    batches = BalancedBatches(train.domain, train.live, size=BATCH, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    looks = {round(len(batches) * k / LOOKS) for k in range(1, LOOKS + 1)}
    early = []
    for epoch in range(epochs):
        model.train()
        for step, rows in enumerate(batches, 1):
            batch = data[rows]
            optimizer.zero_grad()
            F.cross_entropy(model(batch.inputs).logits, batch.live.long()).backward()
            optimizer.step()
            schedule.step()
            if epoch == 0 and step in looks:
                early.append(roc_auc_score(dev.live.numpy(), _live(model, dev)))
                model.train()
    return Probed(float(np.mean(early)), [_live(model, test) for test in tests])


@torch.no_grad()
def _live(model: Fusion, samples: Samples) -> np.ndarray:
    model.eval()
    parts = [model(batch.inputs).logits.softmax(-1)[:, 1] for batch in FaceData(samples).batches(200)]
    return torch.cat(parts).double().numpy()
