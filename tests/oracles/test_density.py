import numpy as np
import pytest
import torch
from torch import Tensor

from balancekit.uncertainty import CrossModalResidual, FeatureDensity
from tests.oracles import density as oracle

DIM, CLASSES = 5, 3
KINDS = [("diag", None, 1e-3), ("full", None, 0.0), ("full", None, 0.2), ("low-rank", 2, 1e-3), ("low-rank", 4, 0.0)]


def draw(seed: int, n: int, d: int = DIM) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(DIM, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    x = torch.randn(n, DIM, generator=g, dtype=torch.float64) @ mixing + 3
    return x * torch.logspace(-1, 1, d, dtype=torch.float64), torch.randint(CLASSES, (n,), generator=g)


@pytest.mark.parametrize(("covariance", "rank", "shrinkage"), KINDS)
@pytest.mark.parametrize("decay", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("classes", [None, CLASSES + 1])
def test_density(covariance: str, rank: int | None, shrinkage: float, decay: float, classes: int | None) -> None:
    chosen = {"covariance": covariance, "rank": rank, "classes": classes, "shrinkage": shrinkage, "decay": decay}
    density = FeatureDensity(DIM, **chosen).double()
    data, weights = [], []
    for commit in range(3):
        for part in range(2):
            x, labels = draw(10 * commit + part, 7)
            density.accumulate(x, labels if classes else None)
            data.append((x.numpy(), labels.numpy() if classes else np.zeros(7, dtype=np.int64)))
            weights.append(np.full(7, decay ** (2 - commit)))
        density.commit()
    x, labels = (np.concatenate(each) for each in zip(*data, strict=True))
    w = np.concatenate(weights)
    means = oracle.class_means(x, labels, w, classes or 1)
    model = oracle.model_covariance(oracle.pooled_covariance(x, labels, w, means), covariance, rank, shrinkage)
    query, of = draw(99, 8)
    every = np.array([[oracle.distance(q, m, model) for m in means if m is not None] for q in query.numpy()])
    np.testing.assert_allclose(density(query).numpy(), every.min(1), rtol=1e-9)
    np.testing.assert_allclose(density(query.reshape(2, 4, DIM)).numpy(), every.min(1).reshape(2, 4), rtol=1e-9)
    if classes:
        assert means[CLASSES] is None
        np.testing.assert_allclose(density(query, of).numpy(), every[range(8), of.numpy()], rtol=1e-9)


@pytest.mark.parametrize("ridge", [1e-2, 1.0])
@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_residual(ridge: float, covariance: str) -> None:
    dims = {"rgb": 4, "depth": 2, "ir": 3}
    residual = CrossModalResidual(dims, ridge=ridge, covariance=covariance).double()
    g = torch.Generator().manual_seed(0)

    def tokens(n: int) -> dict[str, Tensor]:
        hidden = torch.randn(n, DIM, generator=g, dtype=torch.float64)
        mix = [torch.randn(DIM, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64) for d in (4, 2, 3)]
        noise = [torch.randn(n, d, generator=g, dtype=torch.float64) for d in (4, 2, 3)]
        parts = zip(dims, mix, noise, (1.0, 1e3, 1e-2), strict=True)
        return {name: scale * (hidden @ m + 0.5 * e + 2) for name, m, e, scale in parts}

    train, query = tokens(60), tokens(6)
    for start in range(0, 60, 20):
        residual.accumulate({name: x[start : start + 20] for name, x in train.items()})
    residual.commit()
    found = residual(query)
    assert list(found) == list(dims)
    for m, name in enumerate(dims):
        arrays = ([x.numpy() for x in data.values()] for data in (train, query))
        expected = oracle.residuals(*arrays, m, ridge, covariance == "full")
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-9)


def test_confidence_is_the_conformal_p_value_to_the_width_of_a_bin() -> None:
    density = FeatureDensity(DIM).double()
    density.accumulate(draw(0, 400)[0])
    density.commit()
    calibration = draw(1, 300)[0]
    density.calibrate(calibration)
    density.commit()
    scores, width = density(calibration).numpy(), 2 ** (1 / 256)
    query = torch.cat([calibration[:50], 3 + (draw(2, 50)[0] - 3) * 2])
    for d, confidence in zip(density(query).numpy(), density.confidence(query).numpy(), strict=True):
        assert oracle.p_value(d * width, scores) - 1e-12 <= confidence <= oracle.p_value(d / width, scores) + 1e-12
