import pytest
import torch
from torch import nn

from balancekit.losses import pmr_loss
from balancekit.modulation import pmr_weights
from balancekit.prototypes import PrototypeBank
from tests.oracles import pmr as oracle


def close(actual, expected) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, torch.tensor(e, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scores", [(1.0, 1.0), (1.0, 1.5), (1.5, 1.0), (1.0, 9.0), (9.0, 1.0), (3.3, 3.4)])
def test_two_modalities_are_equation_11_and_13(scores: tuple[float, float]) -> None:
    close(pmr_weights(torch.tensor(scores, dtype=torch.float64)), oracle.two_modalities(*scores))


@pytest.mark.parametrize("seed", range(5))
def test_any_number_of_modalities(seed: int) -> None:
    scores = torch.rand(seed + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    close(pmr_weights(scores), oracle.many_modalities(scores.tolist()))


def drawn(seed: int):
    g = torch.Generator().manual_seed(seed)
    banks = {m: PrototypeBank(3, d, decay=0.2).double() for m, d in (("audio", 4), ("video", 2))}
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    features = {m: torch.randn(7, b.prototypes.shape[1], generator=g, dtype=torch.float64) for m, b in banks.items()}
    for m, bank in banks.items():
        bank.update(torch.randn(7, bank.prototypes.shape[1], generator=g, dtype=torch.float64), labels)
        features[m] = features[m] + 0.5 * bank.prototypes[labels]
    return features, labels, banks


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("alpha", "mu"), [(1.0, 0.0), (2.0, 1e-2)])
def test_the_loss_is_equations_8_to_13(seed: int, alpha: float, mu: float) -> None:
    features, labels, banks = drawn(seed)
    lists = [z.tolist() for z in features.values()], labels.tolist(), [b.prototypes.tolist() for b in banks.values()]
    actual = pmr_loss(features, labels, banks, alpha=alpha, mu=mu)
    assert actual.item() == pytest.approx(oracle.loss(*lists, alpha, mu), rel=1e-10)


def test_banks_may_be_in_a_module() -> None:
    features, labels, banks = drawn(0)
    expected = pmr_loss(features, labels, banks, mu=1e-2)
    assert torch.equal(pmr_loss(features, labels, nn.ModuleDict(banks), mu=1e-2), expected)


@pytest.mark.compiles
def test_banks_may_be_compiled() -> None:
    features, labels, banks = drawn(0)
    compiled = {m: torch.compile(bank, backend="eager") for m, bank in banks.items()}
    assert torch.equal(pmr_loss(features, labels, compiled, mu=1e-2), pmr_loss(features, labels, banks, mu=1e-2))


def test_the_entropy_term_has_a_gradient_and_the_released_code_has_no_such_term() -> None:
    features, labels, banks = drawn(0)
    leaves = {m: z.requires_grad_() for m, z in features.items()}
    pmr_loss(leaves, labels, banks, alpha=0.0, mu=1.0).backward()
    assert any(z.grad.norm() > 1e-3 for z in leaves.values())
    with_entropy, without = (pmr_loss(features, labels, banks, mu=mu, released=True) for mu in (1.0, 0.0))
    assert torch.equal(with_entropy, without)


def test_the_released_switch_gives_a_slow_modality_all_of_it_at_once() -> None:
    pce, per = pmr_weights(torch.tensor([1.0, 1.0 + 1e-6]), released=True)
    assert pce.tolist() == [1.0, 0.0]
    assert per.tolist() == [0.0, 0.0]
    pce, _ = pmr_weights(torch.tensor([1.0, 1.0 + 1e-6]))
    assert pce[0] < 1e-5


def test_before_anything_is_known_the_loss_is_0_and_connected() -> None:
    banks = {m: PrototypeBank(3, 2, decay=0.2) for m in ("audio", "video")}
    features = {m: torch.randn(4, 2, requires_grad=True) for m in banks}
    loss = pmr_loss(features, torch.tensor([0, 1, 2, 0]), banks, mu=1e-2)
    loss.backward()
    assert loss.item() == 0
    assert all(not z.grad.any() for z in features.values())
