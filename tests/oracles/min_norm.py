"""The shortest vector in a convex hull, by its geometry: on every face, the point nearest to the origin."""

from itertools import combinations

import numpy as np

Vector = np.ndarray


def foot(corners: list[Vector]) -> tuple[Vector, np.ndarray]:
    """The point nearest to the origin in the plane through the corners, and its barycentric coordinates."""
    start = corners[0]
    if len(corners) == 1:
        return start, np.ones(1)
    edges = np.stack([corner - start for corner in corners[1:]], axis=1)
    along, *_ = np.linalg.lstsq(edges, -start, rcond=None)
    return start + edges @ along, np.concatenate([[1 - along.sum()], along])


def combined(rows: list[Vector]) -> Vector:
    """The shortest convex combination of the rows that are not zero; zero where all are."""
    corners = [row for row in rows if row.any()]
    best = np.zeros_like(rows[0])
    shortest = np.inf
    for size in range(1, len(corners) + 1):
        for face in combinations(corners, size):
            point, coordinates = foot(list(face))
            if (coordinates >= -1e-12).all() and np.linalg.norm(point) < shortest:
                best, shortest = point, np.linalg.norm(point)
    return best
