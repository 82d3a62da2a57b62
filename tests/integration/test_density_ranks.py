"""Densities and residuals on three ranks, one of them without data, are those of one process."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from balancekit.uncertainty import CrossModalResidual, FeatureDensity
from tests.integration import ranks as gloo

RANKS, CLASSES, DIM = 3, 4, 5
DIMS = {"rgb": 3, "depth": 2}
SHARES = [slice(0, 5), slice(5, 12), slice(12, 12)]  # the last rank's batches are empty


def batches(offset: float = 3.0) -> list[tuple[Tensor, Tensor]]:
    """Class 2 comes to rank 1 alone, class 3 to nobody."""
    g = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 1, 2, 2, 0])
    mixing = torch.randn(DIM, DIM, generator=g)
    return [(torch.randn(12, DIM, generator=g) @ mixing + offset + labels[:, None], labels) for _ in range(4)]


def densities() -> dict[str, nn.Module]:
    return {
        "diag": FeatureDensity(DIM, decay=0.5),
        "full": FeatureDensity(DIM, covariance="full", classes=CLASSES),
        "low-rank": FeatureDensity(DIM, covariance="low-rank", rank=2, classes=CLASSES, decay=0.5),
        "residual": CrossModalResidual(DIMS),
    }


def add(module: nn.Module, way: str, x: Tensor, labels: Tensor) -> None:
    if isinstance(module, CrossModalResidual):
        getattr(module, way)(dict(zip(DIMS, x.split(list(DIMS.values()), -1), strict=True)))
    else:
        getattr(module, way)(x, labels if module.classes else None)


def body(share: slice, data: list[tuple[Tensor, Tensor]], poisoned: bool = False) -> dict[str, dict[str, Tensor]]:
    """Two commits of two batches each, then a calibration; states of all modules."""
    found = {}
    for name, module in densities().items():
        for step, (x, labels) in enumerate(data):
            add(module, "accumulate", x[share] * (float("nan") if poisoned and step == 1 else 1.0), labels[share])
            if step % 2 == 1:
                module.commit()
        for x, labels in data:
            add(module, "calibrate", x[share], labels[share])
        module.commit()
        found[name] = module.state_dict()
    return found


def work(rank: int, size: int, folder: Path) -> None:
    share = SHARES[rank]
    found = {
        "plain": body(share, batches()),
        "far": body(share, batches(1e4)),
        "poisoned": body(share, batches(), rank == 0),
    }
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, dict[str, Tensor]]]]:
    folder = tmp_path_factory.mktemp("ranks")
    gloo.run(work, folder, size=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def single_poisoned() -> dict[str, dict[str, Tensor]]:
    """One process: rank 0's part of the second batch is missing from the fit, not from the calibration."""
    found, data = {}, batches()
    for name, module in densities().items():
        for step, (x, labels) in enumerate(data):
            kept = slice(5, 12) if step == 1 else slice(0, 12)
            add(module, "accumulate", x[kept], labels[kept])
            if step % 2 == 1:
                module.commit()
        for x, labels in data:
            add(module, "calibrate", x, labels)
        module.commit()
        found[name] = module.state_dict()
    return found


@pytest.mark.parametrize("name", densities())
@pytest.mark.parametrize(
    ("case", "one_process", "precision"),
    [
        ("plain", lambda: body(slice(0, 12), batches()), 1e-4),
        ("far", lambda: body(slice(0, 12), batches(1e4)), 1e-2),  # float32 itself has 0.001 there
        ("poisoned", single_poisoned, 1e-4),
    ],
)
def test_three_ranks_are_one_process(ranks, name: str, case: str, one_process: Callable, precision: float) -> None:
    expected = one_process()[name]
    first = ranks[0][case][name]
    assert first.keys() == expected.keys()
    for key, value in first.items():
        for other in ranks[1:]:
            assert torch.equal(value.nan_to_num(), other[case][name][key].nan_to_num()), f"ranks disagree on {key}"
        if key == "calibration.counts":  # a distance may move to the next bin
            assert torch.equal(value.sum(1), expected[key].sum(1))
            assert (value.cumsum(1) - expected[key].cumsum(1)).abs().max() <= 4
        elif key != "basis":  # directions have no sign
            size = expected[key].double().nan_to_num().abs().max() if key.endswith("scatter") else 1.0
            close = {"rtol": precision, "atol": precision * float(size), "equal_nan": True}
            torch.testing.assert_close(value, expected[key], **close, msg=lambda m, key=key: f"{key}: {m}")
    if "moments.seen" in first and name in ("full", "low-rank"):
        assert first["moments.seen"].tolist() == [True, True, True, False]
