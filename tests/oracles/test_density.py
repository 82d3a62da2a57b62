import numpy as np
import pytest
import torch
from torch import Tensor

from balancekit.uncertainty import CrossModalResidual, FeatureDensity
from balancekit.uncertainty import _whitening as whitening
from balancekit.uncertainty._quantiles import BINS, HIGH, LOW, Calibration, position
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


def double(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Tensor, *expected: object) -> None:
    torch.testing.assert_close(found, double(*expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_residual_with_a_context(covariance: str) -> None:
    g = torch.Generator().manual_seed(0)
    widths, tokens = {"rgb": 4, "ir": 3, "place": 2}, {}
    hidden = torch.randn(70, DIM, generator=g, dtype=torch.float64)
    for name, d in widths.items():
        mixing = torch.randn(DIM, d, generator=g, dtype=torch.float64)
        tokens[name] = hidden @ mixing + 0.5 * torch.randn(70, d, generator=g, dtype=torch.float64)
    chosen = {"context": {"place": 2}, "covariance": covariance}
    residual = CrossModalResidual({"rgb": 4, "ir": 3}, **chosen).double()
    residual.accumulate({name: x[:64] for name, x in tokens.items()})
    residual.commit()
    found = residual({name: x[64:] for name, x in tokens.items()})
    assert list(found) == ["rgb", "ir"]
    arrays = [x[:64].numpy() for x in tokens.values()], [x[64:].numpy() for x in tokens.values()]
    for m, each in enumerate(found.values()):
        expected = oracle.residuals(*arrays, m, 1e-2, covariance == "full")  # the ridge by default
        np.testing.assert_allclose(each.numpy(), expected, rtol=1e-9)


def test_one_modality_and_a_context_without_a_ridge() -> None:
    residual = CrossModalResidual({"a": 1}, context={"c": 1}, ridge=0.0).double()
    c = double([-1], [-1], [1], [1])
    residual.accumulate({"a": 2 * c + double([-1], [1], [-1], [1]), "c": c})
    residual.commit()
    close(residual({"a": double(-3), "c": double(1)})["a"][None], 5)


def test_tokens_are_promoted_to_the_widest_of_all() -> None:
    residual = CrossModalResidual({"a": 1, "b": 2})
    found = residual({"a": torch.ones(3, 1, dtype=torch.bfloat16), "b": torch.ones(3, 2)})
    assert found["a"].dtype == torch.float32
    found = residual({"a": torch.ones(3, 1, dtype=torch.bfloat16), "b": torch.ones(3, 2).double()})
    assert found["a"].dtype == torch.float64


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (FeatureDensity(3), "dim=3, covariance='diag', shrinkage=0.001, decay=1.0"),
        (
            FeatureDensity(3, covariance="low-rank", rank=2, classes=4, shrinkage=0.0, decay=0.5),
            "dim=3, covariance='low-rank', rank=2, classes=4, shrinkage=0.0, decay=0.5",
        ),
        (
            FeatureDensity(1, covariance="full", classes=1, shrinkage=1.0, decay=0.0),
            "dim=1, covariance='full', classes=1, shrinkage=1.0, decay=0.0",
        ),
        (
            CrossModalResidual({"a": 1, "b": 2}),
            "{'a': 1, 'b': 2}, ridge=0.01, covariance='diag', decay=1.0",
        ),
        (
            CrossModalResidual({"a": 1}, context={"c": 3}, ridge=0.0, covariance="full", decay=0.5),
            "{'a': 1}, context={'c': 3}, ridge=0.0, covariance='full', decay=0.5",
        ),
    ],
)
def test_printed_form(module: FeatureDensity | CrossModalResidual, text: str) -> None:
    assert module.extra_repr() == text


def test_position_among_the_bins() -> None:
    distance = double(0, LOW / 2, LOW, 2 * LOW, 1, HIGH, 2 * HIGH, torch.inf)
    assert position(distance).tolist() == [0, 0.5, 1, 257, 1537, BINS - 1, BINS - 0.5, BINS]
    assert BINS == 4098


def test_confidence_of_two_kinds_by_hand() -> None:
    calibration = Calibration(2)
    calibration.add(double([1, 1, 4], [2, 0, 2 * HIGH]))
    calibration.add(double([1], [torch.nan]))  # skipped
    calibration.commit(torch.tensor(False))
    assert not calibration.new_counts.any()
    half = 2 ** (0.5 / 256)
    query = double([0, 1, half, 2, 4 * half, 100, torch.inf], [0, LOW / 2, LOW, 2 * half, 3, 2 * HIGH, torch.inf])
    found = 4 * calibration.confidence(query)
    close(found, [4, 4, 3, 2, 1.5, 1, 1], [4, 3.5, 3, 2.5, 2, 1.5, 1])
    assert calibration.confidence(query.reshape(2, 7, 1)).shape == (2, 7, 1)
    calibration.add(double([8], [8]))
    calibration.commit(torch.tensor(False))
    assert calibration.counts.sum(1).tolist() == [4, 4]
    calibration.add(double([8], [8]))
    calibration.commit(torch.tensor(True))
    assert not calibration.counts.any()
    assert not calibration.new_counts.any()


def test_deviations_and_correlations_by_hand() -> None:
    close(whitening.deviations(double(4, 0)), 2, 2e-6**0.5)
    close(whitening.deviations(double(0, 0)), 1e-15, 1e-15)
    found = whitening.correlations(double([4, 3, 0], [3, 9, 1], [0, 1, 0]), double(2, 3, 0.5))
    close(found, [1, 0.5, 0], [0.5, 1, 2 / 3], [0, 2 / 3, 1])
    close(whitening.shrunk(double([1, 0.5], [0.5, 1]), 0.25), [1, 0.375], [0.375, 1])


def test_whitener_by_hand() -> None:
    close(whitening.whitener(double([4, 0], [0, 9])), [1 / 2, 0], [0, 1 / 3])
    close(whitening.whitener(double([1, 0.6], [0.6, 1])), [1, 0], [-0.75, 1.25])
    assert whitening.whitener(double([1, 2], [2, 1])).isnan().any()
    assert whitening.cholesky(double([1, 2], [2, 1])).isnan().all()


@pytest.mark.parametrize(
    ("variances", "gain", "scale"),
    [((1, 2, 9), (1.5 / 9) ** 0.5 - 1, 1.5**-0.5), ((0, 0, 1), 1e-3 - 1, 1e3), ((0, 0, 0), 0.0, 1e3)],
)
def test_principal_gains_by_hand(variances: tuple[float, ...], gain: float, scale: float) -> None:
    basis, gains, found = whitening.principal_gains(double(*variances).diag(), 1)
    close(basis.abs(), [0], [0], [1])
    close(gains, gain)
    close(found[None], scale)


def test_statistics_of_a_model_in_bfloat16_are_in_float32() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        density = FeatureDensity(2, covariance="full")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {b.dtype for b in density.buffers() if b.is_floating_point()} == {torch.float32}
