from collections.abc import Callable
from itertools import combinations

import pytest
import torch

from balancekit._shapley import shapley_values
from balancekit.sampling import remix_assign, smv_copies, smv_plan, smv_values, smv_weights
from tests.oracles import shapley as oracle

NAMES = ["c", "a", "d", "b", "e"]  # not in the order of the alphabet


def close(actual: torch.Tensor, expected) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def game(modalities: int, seed: int, *shape: int) -> tuple[list[str], dict[tuple[str, ...], torch.Tensor]]:
    """Names, and a value of every subset, the empty one too."""
    g = torch.Generator().manual_seed(seed)
    names = NAMES[:modalities]
    subsets = [tuple(sorted(s)) for size in range(modalities + 1) for s in combinations(names, size)]
    return names, {s: torch.randn(shape, generator=g, dtype=torch.float64) for s in subsets}


def number(values: dict[tuple[str, ...], torch.Tensor], at: int) -> Callable[[tuple[str, ...]], float]:
    return lambda subset: values[subset].flatten()[at].item()


@pytest.mark.parametrize("modalities", range(1, 6))
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_shapley_values_are_the_mean_over_all_orders(modalities: int, shape: tuple[int, ...]) -> None:
    names, values = game(modalities, modalities, *shape)
    phi = shapley_values(lambda subset: values[tuple(sorted(subset))], names, empty=None)
    assert list(phi) == names
    for at in range(values[()].numel()):
        expected = oracle.shapley(number(values, at), names)
        close(torch.stack([phi[name].flatten()[at] for name in names]), [expected[name] for name in names])


@pytest.mark.parametrize("permutations", [1, 2, 7])
def test_sampled_shapley_values_are_the_mean_over_the_drawn_orders(permutations: int) -> None:
    names, values = game(4, permutations, 2)
    sampled = shapley_values(
        lambda subset: values[tuple(sorted(subset))],
        names,
        empty=values[()],
        permutations=permutations,
        generator=torch.Generator().manual_seed(3),
    )
    g = torch.Generator().manual_seed(3)
    orders = [[names[i] for i in torch.randperm(4, generator=g).tolist()] for _ in range(permutations)]
    for at in range(2):
        expected = oracle.mean_over(number(values, at), orders)
        close(torch.stack([sampled[name][at] for name in names]), [expected[name] for name in names])


def test_smv_values_of_two_modalities_are_the_printed_ones() -> None:
    cases = [(a, v, av) for a in (0, 1) for v in (0, 1) for av in (0, 1)]
    a, v, av = (torch.tensor(column) for column in zip(*cases, strict=True))
    values = smv_values({("v", "a"): av, ("a",): a, ("v",): v}, torch.ones(8, dtype=torch.int64))
    assert values.tolist() == [list(oracle.smv_pair(*case, 1)) for case in cases]


@pytest.mark.parametrize("modalities", range(1, 6))
@pytest.mark.parametrize("frozen", [False, True])
def test_smv_values_and_copies(modalities: int, frozen: bool) -> None:
    g = torch.Generator().manual_seed(modalities)
    names, values = game(modalities, 0)
    labels = torch.randint(3, (40,), generator=g)
    predictions = {subset: torch.randint(3, (40,), generator=g) for subset in values if subset}
    keyed = {frozenset(subset) if frozen else subset: each for subset, each in predictions.items()}
    actual = smv_values(keyed, labels)
    expected = oracle.smv({subset: each.tolist() for subset, each in predictions.items()}, labels.tolist(), names)
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-6, atol=1e-6)  # float32
    assert smv_copies(actual).tolist() == [[oracle.copies(round(phi, 9)) for phi in row] for row in expected]


@pytest.mark.parametrize("phi", [-2.0, -0.1, -0.0999, 0.0, 0.4, 0.4001, 0.9999, 1.0, 1.5])
def test_smv_copies_at_the_borders(phi: float) -> None:
    for dtype in (torch.float64, torch.float32):
        assert smv_copies(torch.tensor([[phi]], dtype=dtype)).item() == oracle.copies(phi)


@pytest.mark.parametrize("modalities", [1, 2, 4])
def test_smv_weights(modalities: int) -> None:
    values = torch.randn(9, modalities, generator=torch.Generator().manual_seed(modalities), dtype=torch.float64)
    close(smv_weights(values), oracle.weights(values.tolist()))
    close(smv_weights(3 * values), oracle.weights((3 * values).tolist()))


@pytest.mark.parametrize("shape", [(0, 2), (1, 1), (5, 2), (6, 3)])
def test_smv_plan(shape: tuple[int, int]) -> None:
    copies = torch.randint(4, shape, generator=torch.Generator().manual_seed(0))
    index, keep = smv_plan(copies)
    assert [*zip(index.tolist(), keep.tolist(), strict=True)] == oracle.plan(copies.tolist())


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_remix_assign(modalities: int) -> None:
    g = torch.Generator().manual_seed(modalities)
    logits = {name: 3 * torch.randn(20, 5, generator=g, dtype=torch.float64) for name in NAMES[:modalities]}
    expected = [oracle.weakest([each[i].tolist() for each in logits.values()]) for i in range(20)]
    assert remix_assign(logits).tolist() == expected
