"""Banks on two ranks: two half batches are one batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from balancekit.prototypes import PrototypeBank, prototypical_cross_entropy
from tests.integration import ranks as gloo

RANKS, CLASSES, WIDTH = 2, 5, 3


def batches() -> list[tuple[Tensor, Tensor]]:
    """Three batches whose halves hold different classes; class 2 comes to rank 1 alone, class 4 to nobody."""
    g = torch.Generator().manual_seed(0)
    labels = [[0, 0, 0, 1, 1, 2, 0, 2], [3, 3, 3, 3, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 2, 1]]
    return [(torch.randn(8, WIDTH, generator=g), torch.tensor(row)) for row in labels]


def half(rank: int, tensor: Tensor) -> Tensor:
    return tensor.chunk(RANKS)[rank]


def updates(rank: int) -> dict[str, Tensor]:
    bank = PrototypeBank(CLASSES, WIDTH, decay=0.3)
    for features, labels in batches():
        bank.update(half(rank, features), half(rank, labels))
    return bank.state_dict()


def one_commit(rank: int) -> dict[str, Tensor]:
    bank = PrototypeBank(CLASSES, WIDTH, decay=0.3)
    for features, labels in batches():
        if rank == 0:
            bank.accumulate(features, labels)  # rank 1 has no data at all
    bank.commit()
    return bank.state_dict()


def poisoned(rank: int) -> dict[str, Tensor]:
    bank = PrototypeBank(CLASSES, WIDTH, decay=0.3)
    for step, (features, labels) in enumerate(batches()):
        if step == 1 and rank == 0:
            features = features * float("nan")
        bank.update(half(rank, features), half(rank, labels))
    return bank.state_dict()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.bank = nn.Linear(WIDTH, WIDTH), PrototypeBank(CLASSES, WIDTH, decay=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


def inside_ddp(rank: int) -> dict[str, Tensor]:
    """The bank is a part of the wrapped model, whose buffers DDP copies from rank 0 before each forward."""
    model = Model()
    parallel = DistributedDataParallel(model)
    for features, labels in batches():
        z = parallel(half(rank, features))
        loss = prototypical_cross_entropy(z, half(rank, labels), model.bank.prototypes, seen=model.bank.seen)
        model.bank.update(z, half(rank, labels))
        loss.backward()
    return model.state_dict()


def single(body: Callable[[PrototypeBank, Tensor, Tensor], None]) -> dict[str, Tensor]:
    bank = PrototypeBank(CLASSES, WIDTH, decay=0.3)
    for features, labels in batches():
        body(bank, features, labels)
    bank.commit()
    return bank.state_dict()


BODIES = (updates, one_commit, poisoned, inside_ddp)


def work(rank: int, size: int, folder: Path) -> None:
    torch.save({body.__name__: body(rank) for body in BODIES}, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each rank found, by the name of the body; all bodies run in one pair of processes."""
    folder = tmp_path_factory.mktemp("ranks")
    gloo.run(work, folder, size=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


def assert_ranks(ranks: list[dict[str, dict[str, Tensor]]], body: Callable, expected: dict[str, Tensor]) -> None:
    first, second = (found[body.__name__] for found in ranks)
    assert first.keys() == second.keys() == expected.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, expected[name], msg=name)
        assert torch.equal(value, second[name]), f"ranks disagree on {name}"


def test_two_half_batches_are_one_batch(ranks) -> None:
    expected = single(PrototypeBank.update)
    assert expected["seen"].tolist() == [True, True, True, True, False]
    assert_ranks(ranks, updates, expected)


def test_a_rank_without_data_takes_part_in_the_commit(ranks) -> None:
    assert_ranks(ranks, one_commit, single(PrototypeBank.accumulate))


def test_a_non_finite_half_batch_is_skipped_and_the_other_half_counts(ranks) -> None:
    bank = PrototypeBank(CLASSES, WIDTH, decay=0.3)
    for step, (features, labels) in enumerate(batches()):
        kept = slice(4, 8) if step == 1 else slice(0, 8)
        bank.update(features[kept], labels[kept])
    assert_ranks(ranks, poisoned, bank.state_dict())


def test_a_bank_inside_ddp(ranks) -> None:
    model = Model()
    for features, labels in batches():
        model.bank.update(model(features), labels)
    assert_ranks(ranks, inside_ddp, model.state_dict())
