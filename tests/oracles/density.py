"""Feature density, cross-modal residual and conformal confidence from all samples at once, in float64 and in loops."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def class_means(x: Array, labels: NDArray[np.int64], weights: Array, classes: int) -> list[Array | None]:
    """Weighted mean of each class, None without samples."""
    means: list[Array | None] = []
    for c in range(classes):
        total, weight = np.zeros(x.shape[1]), 0.0
        for i in range(len(x)):
            if labels[i] == c:
                total += weights[i] * x[i]
                weight += weights[i]
        means.append(total / weight if weight else None)
    return means


def pooled_covariance(x: Array, labels: NDArray[np.int64], weights: Array, means: list[Array | None]) -> Array:
    """Lee et al. 2018, Eq. 1: (1/N) Σ_c Σ_{i of c} (x_i − mean_c)(x_i − mean_c)ᵀ."""
    covariance = np.zeros((x.shape[1], x.shape[1]))
    for i in range(len(x)):
        mean = means[labels[i]]
        assert mean is not None
        covariance += weights[i] * np.outer(x[i] - mean, x[i] - mean)
    return covariance / weights.sum()


def model_covariance(covariance: Array, kind: str, rank: int | None, shrinkage: float) -> Array:
    """What "diag", "full" and "low-rank" make of a covariance, as a matrix."""
    std = np.sqrt(np.diag(covariance))
    if kind == "diag":
        return np.diag(std**2)
    correlation = covariance / np.outer(std, std)
    for i in range(len(std)):
        for j in range(len(std)):
            if i != j:
                correlation[i, j] *= 1 - shrinkage
    if kind == "low-rank":
        assert rank is not None
        values, vectors = np.linalg.eigh(correlation)
        order = np.argsort(-values)
        kept, lost = order[:rank], order[rank:]
        noise = values[lost].mean()  # Tipping and Bishop 1999, Eq. 8
        loadings = vectors[:, kept] @ np.diag(np.sqrt(values[kept] - noise))  # Eq. 7
        correlation = loadings @ loadings.T + noise * np.eye(len(std))
    return correlation * np.outer(std, std)


def distance(x: Array, mean: Array, covariance: Array) -> float:
    """Mahalanobis distance of one vector, divided by sqrt(d)."""
    return float(np.sqrt((x - mean) @ np.linalg.solve(covariance, x - mean) / len(x)))


def p_value(d: float, calibration: Array) -> float:
    """Bates et al. 2023, the marginal conformal p-value, of a score that grows with doubt."""
    return (1 + sum(float(each >= d) for each in calibration)) / (len(calibration) + 1)


def residuals(train: list[Array], query: list[Array], m: int, ridge: float, full: bool) -> Array:
    """Uncertainty of modality m for each row of `query`: ridge regression as least squares on augmented data."""
    mean = [x.mean(0) for x in train]
    std = [x.std(0) for x in train]
    z, q = ([(x - a) / s for x, a, s in zip(data, mean, std, strict=True)] for data in (train, query))
    z_o, q_o = (np.concatenate([x for k, x in enumerate(data) if k != m], 1) for data in (z, q))
    n, width = z_o.shape
    rows = np.concatenate([z_o, np.sqrt(n * ridge) * np.eye(width)])
    targets = np.concatenate([z[m], np.zeros((width, z[m].shape[1]))])
    b = np.linalg.lstsq(rows, targets, rcond=None)[0]
    left, r = z[m] - z_o @ b, q[m] - q_o @ b
    covariance = sum(np.outer(row, row) for row in left) / n
    kept = model_covariance(covariance, "full" if full else "diag", None, 1e-3)
    return np.array([distance(row, np.zeros(len(row)), kept) for row in r])
