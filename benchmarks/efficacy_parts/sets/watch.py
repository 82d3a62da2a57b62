"""Shoulder exercises of ten people with a watch (D. Burns, arXiv 1802.01489), as shipped in seglearn 1.2.5 (BSD-3)."""

import hashlib

import numpy as np
import torch
from torch import Tensor

from .installed import expect_found, installed
from .multimodal import Draw, Multimodal

LENGTH, HOP = 100, 50  # samples, at 50 Hz
TESTED, VALIDATED = 3, 1  # people
DIGEST = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"


def watch() -> Multimodal:
    file = installed("seglearn", "data/watch_dataset.npy")
    expect_found(f"{file.name}, sha256", hashlib.sha256(file.read_bytes()).hexdigest(), DIGEST)  # a pickle runs code
    data = np.load(file, allow_pickle=True).item()
    windows, labels, people = [], [], []
    for x, exercise, person in zip(data["X"], data["y"], data["subject"], strict=True):
        for start in range(0, len(x) - LENGTH + 1, HOP):
            windows.append(x[start : start + LENGTH].T)
            labels.append(int(exercise))
            people.append(int(person))
    x = torch.tensor(np.stack(windows), dtype=torch.float32)
    expect_found("watch_dataset.npy, windows", tuple(x.shape), (4677, 6, LENGTH))
    views, y = {"accelerometer": x[:, :3], "gyroscope": x[:, 3:]}, torch.tensor(labels)
    draw = unseen(torch.tensor(people))
    return Multimodal(
        "watch",
        views,
        y,
        draw,
        epochs=10,
        axes=(0, 2),
        note="4677 windows; three of ten people are tested",
    )


def unseen(people: Tensor) -> Draw:
    """Set people aside."""

    def draw(rows: Tensor, test: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        present = people[rows].unique()
        chosen = present[torch.randperm(len(present), generator=generator)[: TESTED if test else VALIDATED]]
        aside = torch.isin(people[rows], chosen)
        return rows[~aside], rows[aside]

    return draw
