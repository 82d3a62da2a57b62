"""Summaries on three ranks: samples of the same inputs on each are samples on one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from balancekit.uncertainty import ProbabilitySummary, ValueSummary
from tests.integration import ranks as gloo

RANKS = 3
SHARES = [slice(0, 1), slice(1, 5), slice(5, 12)]  # one sample, four, seven
Summary = ProbabilitySummary | ValueSummary


def data() -> Tensor:
    probs = torch.randn(12, 4, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    probs[6, 2, 1] = float("nan")  # on the last rank
    return probs


def summaries(samples: slice) -> dict[str, Summary]:
    probs = data()[samples]
    made = {"probabilities": ProbabilitySummary(), "values": ValueSummary(), "with variance": ValueSummary()}
    made["probabilities"].update(probs)
    made["values"].update(1e6 + 100 * probs)
    made["with variance"].update(probs, variance=probs.square())
    return made


def work(rank: int, size: int, folder: Path) -> None:
    found: dict[str, Any] = {}
    for name, summary in summaries(SHARES[rank]).items():
        own = summary.compute()
        first, second, after = summary.compute(sync=True), summary.compute(sync=True), summary.compute()
        for a, b in ((first, second), (own, after)):
            assert all(torch.equal(x.nan_to_num(-9), y.nan_to_num(-9)) for x, y in zip(a[:-1], b[:-1], strict=True))
            assert a.samples == b.samples
        found[name] = tuple(first)
    corrected = summaries(SHARES[rank])["probabilities"].compute(corrected=True, sync=True)  # rank 0 has one sample
    torch.save(found | {"corrected": tuple(corrected)}, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple]]:
    folder = tmp_path_factory.mktemp("ranks")
    gloo.run(work, folder, size=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", ["probabilities", "values", "with variance", "corrected"])
def test_samples_on_three_ranks_are_samples_on_one(ranks: list[dict[str, tuple]], name: str) -> None:
    whole = summaries(slice(0, 12))
    expected = whole["probabilities"].compute(corrected=True) if name == "corrected" else whole[name].compute()
    for found in ranks:
        assert found[name][-1] == expected.samples == 12
        for field, a, b, first in zip(
            expected._fields[:-1], found[name][:-1], expected[:-1], ranks[0][name][:-1], strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True, msg=f"{name}, {field}")
            assert torch.equal(a.nan_to_num(-9), first.nan_to_num(-9)), f"ranks disagree on {field}"
            assert a.isnan().any() or field == "aleatoric"


def test_without_a_group_every_sample_is_here() -> None:
    for summary in summaries(slice(0, 12)).values():
        for a, b in zip(summary.compute(sync=True)[:-1], summary.compute()[:-1], strict=True):
            assert torch.equal(a.nan_to_num(-9), b.nan_to_num(-9))
