from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from balancekit._shapley import shapley_values
from balancekit.sampling import (
    remix_assign,
    remix_batches,
    smv_copies,
    smv_plan,
    smv_values,
    smv_weights,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
some = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 5)
Value = Callable[[frozenset[str]], torch.Tensor]


def subsets(names: list[str]) -> list[frozenset[str]]:
    return [frozenset(chosen) for size in range(len(names) + 1) for chosen in combinations(names, size)]


def whole(names: list[str], seed: int) -> dict[frozenset[str], torch.Tensor]:
    """A game of whole numbers, so that sums are exact in any order."""
    g = torch.Generator().manual_seed(seed)
    return {subset: torch.randint(-50, 50, (3,), generator=g).double() for subset in subsets(names)}


def drawn(seed: int, samples: int = 12, classes: int = 3) -> tuple[dict[frozenset[str], torch.Tensor], torch.Tensor]:
    """Predictions of every subset of three modalities, and labels."""
    g = torch.Generator().manual_seed(seed)
    predictions = {s: torch.randint(classes, (samples,), generator=g) for s in subsets(["a", "b", "c"]) if s}
    return predictions, torch.randint(classes, (samples,), generator=g)


# Shapley values


@some
@given(sizes, seeds, st.sampled_from([None, 1, 3]))
def test_shapley_values_add_up_to_what_all_reach(modalities, seed, permutations) -> None:
    names = list("abcde")[:modalities]
    values = whole(names, seed)
    g = torch.Generator().manual_seed(seed)
    phi = shapley_values(values.__getitem__, names, empty=None, permutations=permutations, generator=g)
    total = torch.stack([*phi.values()]).sum(0)
    torch.testing.assert_close(total, values[frozenset(names)] - values[frozenset()], rtol=0, atol=1e-12)


@some
@given(seeds, st.permutations(list("abcd")))
def test_shapley_values_are_the_same_under_other_names_and_in_another_order(seed, renamed) -> None:
    names = list("abcd")
    values = whole(names, seed)
    back = dict(zip(renamed, names, strict=True))
    phi = shapley_values(values.__getitem__, names, empty=None)
    other = shapley_values(lambda s: values[frozenset(back[name] for name in s)], sorted(renamed), empty=None)
    for name, was in back.items():
        assert torch.equal(other[name], phi[was])


@some
@given(seeds, sizes)
def test_a_null_player_gets_nothing_and_changes_nothing_for_the_others(seed, modalities) -> None:
    names = list("abcde")[:modalities]
    values = whole(names, seed)
    alone = shapley_values(values.__getitem__, names, empty=None)
    phi = shapley_values(lambda s: values[s - {"null"}], [*names, "null"], empty=None)
    assert not phi["null"].any()
    for name in names:
        torch.testing.assert_close(phi[name], alone[name], rtol=0, atol=1e-12)


@some
@given(seeds)
def test_modalities_that_can_take_each_others_place_get_the_same(seed) -> None:
    values = whole(["a", "b", "c"], seed)

    def value(subset: frozenset[str]) -> torch.Tensor:
        twins = len(subset & {"b", "twin"})
        return values[subset - {"b", "twin"}] + twins * values[frozenset("b")]

    phi = shapley_values(value, ["b", "a", "c", "twin"], empty=None)
    assert torch.equal(phi["b"], phi["twin"])
    assert torch.equal(phi["b"], values[frozenset("b")])


@pytest.mark.parametrize("modalities", range(1, 7))
@pytest.mark.parametrize("asks", [False, True])
def test_each_subset_is_asked_for_exactly_once(modalities: int, asks: bool) -> None:
    names, calls = list("abcdef")[:modalities], []

    def value(subset: frozenset[str]) -> torch.Tensor:
        calls.append(subset)
        return torch.zeros(())

    shapley_values(value, names, empty=None if asks else 0.0)
    assert len(calls) == 2**modalities - (0 if asks else 1)
    assert set(calls) == {subset for subset in subsets(names) if subset or asks}


def test_sampling_asks_for_no_more_than_it_needs_and_goes_beyond_ten_modalities() -> None:
    names, calls = [f"m{i}" for i in range(12)], []

    def value(subset: frozenset[str]) -> torch.Tensor:
        calls.append(subset)
        return torch.tensor(float(len(subset) ** 2))

    g = torch.Generator().manual_seed(0)
    phi = shapley_values(value, names, permutations=2, generator=g)
    assert len(calls) == len(set(calls)) <= 24
    assert sum(phi.values()).item() == 144.0
    shares = torch.stack([*phi.values()])  # the mean of two odd numbers, one for each place
    assert (shares * 2 % 2 == 0).all()


def test_equal_generators_draw_equal_orders_and_a_value_that_draws_does_not_disturb_them() -> None:
    values = whole(list("abcd"), 0)
    quiet, loud, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1), torch.Generator()

    def noisy(subset: frozenset[str]) -> torch.Tensor:
        torch.rand(1, generator=loud)
        return values[subset]

    expected = shapley_values(values.__getitem__, list("abcd"), permutations=3, generator=quiet)
    actual = shapley_values(noisy, list("abcd"), permutations=3, generator=loud)
    for name in "abcd":
        assert torch.equal(actual[name], expected[name])
    different = shapley_values(values.__getitem__, list("abcd"), permutations=3, generator=other.manual_seed(2))
    assert any(not torch.equal(different[name], expected[name]) for name in "abcd")


def test_the_value_of_the_empty_set() -> None:
    values = whole(list("ab"), 3)
    bottom = torch.full((3,), 7.0, dtype=torch.float64)
    expected = shapley_values(lambda s: values[s] if s else bottom, ["a", "b"], empty=None)
    for empty in (7, 7.0, torch.tensor(7.0), bottom):
        actual = shapley_values(values.__getitem__, ["a", "b"], empty=empty)
        for name in "ab":
            assert torch.equal(actual[name], expected[name])


def test_gradients_flow_to_the_values_and_to_that_of_the_empty_set() -> None:
    torch.manual_seed(0)
    names = ["a", "b", "c"]
    every = subsets(names)
    leaves = [torch.randn(2, 2, dtype=torch.float64, requires_grad=True) for _ in every]

    def of(*given: torch.Tensor) -> torch.Tensor:
        values = dict(zip(every, given, strict=True))
        phi = shapley_values(values.__getitem__, names, empty=values[frozenset()])
        return torch.stack([phi[name] for name in names])

    assert torch.autograd.gradcheck(of, leaves)
    of(*leaves)[0].sum().backward()
    for subset, leaf in zip(every, leaves, strict=True):
        weight = (1 if "a" in subset else -1) * {0: 1 / 3, 1: 1 / 6, 2: 1 / 3}[len(subset - {"a"})]
        torch.testing.assert_close(leaf.grad, torch.full_like(leaf, weight))


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapley_values_come_in_float32_or_wider(dtype: torch.dtype) -> None:
    values = {subset: each.to(dtype) for subset, each in whole(list("abc"), 0).items()}  # exact in bfloat16 too
    wide = torch.promote_types(dtype, torch.float32)
    phi = shapley_values(values.__getitem__, list("abc"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = shapley_values(values.__getitem__, list("abc"))
    exact = shapley_values({s: each.double() for s, each in values.items()}.__getitem__, list("abc"))
    for name in "abc":
        assert phi[name].dtype == wide
        assert torch.equal(phi[name], exact[name].to(wide))
        assert torch.equal(cast[name], phi[name])


def test_a_nan_is_not_hidden() -> None:
    values = whole(list("abc"), 0)
    values[frozenset("ab")][1] = float("nan")
    for each in shapley_values(values.__getitem__, list("abc")).values():
        assert each.isnan().tolist() == [False, True, False]


# SMV


@some
@given(seeds)
def test_smv_values_add_up_to_the_number_of_modalities_or_to_nothing(seed) -> None:
    predictions, labels = drawn(seed)
    right = predictions[frozenset("abc")] == labels
    torch.testing.assert_close(smv_values(predictions, labels).sum(1), 3.0 * right, rtol=0, atol=1e-6)


@some
@given(seeds, st.permutations(list("abc")))
def test_the_columns_of_smv_values_follow_the_subsets_of_one(seed, order) -> None:
    predictions, labels = drawn(seed)
    expected = smv_values(predictions, labels)
    single = {frozenset(name): predictions[frozenset(name)] for name in order}
    larger = {subset: each for subset, each in predictions.items() if len(subset) > 1}
    actual = smv_values({**larger, **single}, labels)
    assert torch.equal(actual, expected[:, ["abc".index(name) for name in order]])


@pytest.mark.parametrize("modalities", range(1, 11))
def test_where_every_subset_is_right_each_modality_is_worth_exactly_one_and_has_no_copies(modalities: int) -> None:
    labels = torch.tensor([4])
    values = smv_values({s: labels for s in subsets(list("abcdefghij")[:modalities]) if s}, labels)
    assert torch.equal(values, torch.ones(1, modalities))
    assert not smv_copies(values).any()


def test_a_modality_that_misleads_is_worth_less_than_nothing() -> None:
    labels, wrong = torch.tensor([1]), torch.tensor([0])
    values = smv_values({("a",): labels, ("v",): wrong, ("a", "v"): wrong}, labels)
    assert values.tolist() == [[0.5, -0.5]]
    assert smv_copies(values).tolist() == [[1, 3]]


@some
@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=9))
def test_the_lower_the_value_the_more_copies(values) -> None:
    copies = smv_copies(torch.tensor([sorted(values)])).squeeze(0).tolist()
    assert copies == sorted(copies, reverse=True)
    assert set(copies) <= {0, 1, 2, 3}


def test_the_ends_of_the_copies() -> None:
    assert smv_copies(torch.tensor([[float("-inf"), float("inf"), float("nan")]])).tolist() == [[3, 0, 0]]


@some
@given(seeds, st.permutations(range(3)), st.integers(-8, 8))
def test_smv_weights_spare_the_best_follow_the_names_and_see_gaps_only(seed, order, shift) -> None:
    values = torch.randint(-8, 8, (4, 3), generator=torch.Generator().manual_seed(seed)) / 4.0
    weights = smv_weights(values)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert weights[values.mean(0).argmax()] == 0
    assert torch.equal(smv_weights(values[:, order]), weights[order])
    assert torch.equal(smv_weights(values + shift), weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_smv_weights_come_in_float32_or_wider(dtype: torch.dtype) -> None:
    values = torch.full((1000, 2), 0.5, dtype=dtype)
    values[:, 1] = 0.25
    weights = smv_weights(values)  # a sum of thousands in bfloat16 would stop growing
    assert torch.equal(weights, torch.tensor([0.0, 0.25], dtype=torch.promote_types(dtype, torch.float32)))
    values[0, 0] = float("nan")
    assert smv_weights(values).isnan().all()


@some
@given(seeds, st.integers(0, 6), st.integers(1, 4))
def test_a_plan_shows_each_sample_once_as_it_is_and_each_copy_once(seed, samples, modalities) -> None:
    copies = torch.randint(4, (samples, modalities), generator=torch.Generator().manual_seed(seed))
    index, keep = smv_plan(copies)
    assert len(index) == len(keep) == samples + int(copies.sum())
    assert index[:samples].tolist() == list(range(samples))
    assert keep[:samples].all()
    counted = torch.zeros_like(copies)
    counted.index_add_(0, index[samples:], keep[samples:].long())
    assert torch.equal(counted, copies)
    assert (keep[samples:].sum(1) == 1).all()


def test_a_plan_is_a_sampler() -> None:
    class Pairs(torch.utils.data.Dataset):
        def __getitem__(self, row: tuple[int, torch.Tensor]) -> torch.Tensor:
            index, keep = row
            return torch.full((2,), 10.0 + index) * keep

    index, keep = smv_plan(torch.tensor([[0, 1], [1, 0]]))
    loader = DataLoader(Pairs(), batch_size=4, sampler=[*zip(index.tolist(), keep, strict=True)])
    (batch,) = loader
    assert batch.tolist() == [[10.0, 10.0], [11.0, 11.0], [0.0, 10.0], [11.0, 0.0]]


# Data Remixing


@some
@given(seeds, st.permutations(range(3)), st.sampled_from(DTYPES))
def test_a_sample_goes_to_the_modality_that_is_least_sure_whatever_the_names(seed, order, dtype) -> None:
    g = torch.Generator().manual_seed(seed)
    sure = torch.stack([torch.randperm(3, generator=g) for _ in range(6)])  # rank of each modality in each sample
    logits = {name: (sure[:, m, None] * torch.tensor([4.0, 0.0, -4.0])).to(dtype) for m, name in enumerate("avt")}
    assigned = remix_assign(logits)
    assert torch.equal(assigned, sure.argmin(1))
    shuffled = remix_assign({"avt"[m]: logits["avt"[m]] for m in order})
    assert torch.equal(torch.tensor(order)[shuffled], assigned)


def test_ties_shifts_certainty_and_missing_classes() -> None:
    flat, sure = torch.zeros(1, 3), torch.tensor([[0.0, -torch.inf, -torch.inf]])
    assert remix_assign({"a": flat, "v": flat + 5}).item() == 0
    assert remix_assign({"a": flat - 1e4, "v": flat}).item() == 0
    assert remix_assign({"a": sure, "v": torch.tensor([[9.0, 0.0, -torch.inf]])}).item() == 1
    assert remix_assign({"a": flat, "v": flat * torch.nan}).item() == 1


def test_an_assignment_is_detached() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    assigned = remix_assign({"a": logits})
    assert not assigned.requires_grad
    assert assigned.tolist() == [0, 0]


@some
@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 7), st.booleans(), seeds)
def test_batches_hold_one_modality_and_every_sample_once(assigned, batch_size, drop_last, seed) -> None:
    assignment = torch.tensor(assigned, dtype=torch.int64)
    g = torch.Generator().manual_seed(seed)
    batches = remix_batches(assignment, batch_size, drop_last=drop_last, generator=g)
    seen = sorted(index for batch in batches for index in batch)
    assert len(seen) == len(set(seen))
    for modality in range(4):
        mine = [batch for batch in batches if assigned[batch[0]] == modality]
        assert all(assigned[index] == modality for batch in mine for index in batch)
        full, rest = divmod(assigned.count(modality), batch_size)
        lengths = full * [batch_size] + ([rest] if rest and not drop_last else [])
        assert sorted((len(batch) for batch in mine), reverse=True) == lengths


def test_batches_are_repeatable_shuffled_and_fit_a_loader() -> None:
    assignment = torch.arange(40) % 2
    first, again, other = (
        remix_batches(assignment, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first != sorted(first)
    assert any(batch != sorted(batch) for batch in first)
    loader = DataLoader(assignment, batch_sampler=first)
    assert [len(batch.unique()) for batch in loader] == 10 * [1]
    state = torch.random.get_rng_state()
    remix_batches(assignment, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), state)
