import pytest
import torch

from balancekit.prototypes import (
    PrototypeBank,
    prototype_entropy,
    prototype_logits,
    prototypical_cross_entropy,
    single_side_labels,
)
from tests.oracles import prototypes as oracle


@pytest.fixture(params=range(4))
def problem(request):
    g = torch.Generator().manual_seed(request.param)
    features = torch.randn(7, 5, generator=g, dtype=torch.float64)
    prototypes = torch.randn(4, 5, generator=g, dtype=torch.float64)
    labels = torch.randint(4, (7,), generator=g)
    seen = torch.tensor([True, request.param % 2 == 0, True, request.param < 2])
    return features, labels, prototypes, seen


def close(actual: torch.Tensor, expected) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_probabilities(problem) -> None:
    features, _, prototypes, seen = problem
    p = prototype_logits(features, prototypes, seen=seen).softmax(-1)
    for row, feature in zip(p, features.tolist(), strict=True):
        expected = oracle.probabilities(feature, prototypes.tolist(), seen.tolist())
        close(row, [expected.get(k, 0.0) for k in range(4)])


def test_prototypical_cross_entropy(problem) -> None:
    features, labels, prototypes, seen = problem
    values = oracle.cross_entropies(features.tolist(), labels.tolist(), prototypes.tolist(), seen.tolist())
    counted = [v for v in values if v is not None]
    loss = [prototypical_cross_entropy(features, labels, prototypes, seen=seen, reduction=r) for r in ("none", "sum")]
    close(loss[0], [v or 0.0 for v in values])
    close(loss[1], sum(counted))
    close(prototypical_cross_entropy(features, labels, prototypes, seen=seen), sum(counted) / len(counted))


def test_prototype_entropy(problem) -> None:
    features, _, prototypes, seen = problem
    values = oracle.entropies(features.tolist(), prototypes.tolist(), seen.tolist())
    close(prototype_entropy(features, prototypes, seen=seen, reduction="none"), values)
    close(prototype_entropy(features, prototypes, seen=seen, reduction="sum"), sum(values))
    close(prototype_entropy(features, prototypes, seen=seen), sum(values) / len(values))


def test_single_side_prototypical_loss(problem) -> None:
    features, domain, _, _ = problem
    domain = domain % 3
    live = torch.arange(7) % 2 == 0
    labels = single_side_labels(live, domain)
    assert labels.tolist() == oracle.single_side(live.tolist(), domain.tolist())
    means = oracle.Bank(4, decay=0.2)
    means.update(features.tolist(), labels.tolist())
    seen = [p is not None for p in means.prototypes]
    filled = [p or [0.0] * 5 for p in means.prototypes]
    values = oracle.cross_entropies(features.tolist(), labels.tolist(), filled, seen)
    bank = PrototypeBank(4, 5, decay=0.2).double()
    bank.update(features, labels)
    loss = prototypical_cross_entropy(features, labels, bank.prototypes, seen=bank.seen)
    close(loss, sum(values) / len(values))


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.9, 1.0])
def test_bank(decay: float) -> None:
    g = torch.Generator().manual_seed(0)
    bank, by_lists = PrototypeBank(4, 3, decay=decay).double(), oracle.Bank(4, decay)
    for _ in range(5):
        features = torch.randn(6, 3, generator=g, dtype=torch.float64)
        labels = torch.randint(3, (6,), generator=g)  # class 3 never comes
        bank.update(features, labels)
        by_lists.update(features.tolist(), labels.tolist())
    assert bank.seen.tolist() == [p is not None for p in by_lists.prototypes]
    close(bank.prototypes, [p or [0.0] * 3 for p in by_lists.prototypes])
