"""Law 3 of the bank and its losses, clause by clause, and law 8 (compilation is in tests/unit)."""

import copy
import io
import math
import pickle

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from balancekit.prototypes import (
    PrototypeBank,
    prototype_entropy,
    prototype_logits,
    prototypical_cross_entropy,
)

CLASSES = 4
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
some = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)
scales = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e3, 1e15])
masks = st.lists(st.booleans(), min_size=CLASSES, max_size=CLASSES).map(torch.tensor)
broken = st.sampled_from([float("nan"), float("inf"), float("-inf")])


def draw(seed: int, b: int = 6, d: int = 5, scale: float = 1.0, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(b, d, generator=g) * scale).to(dtype), torch.randint(CLASSES, (b,), generator=g)


def filled(seed: int, d: int = 5, decay: float = 0.5) -> PrototypeBank:
    bank = PrototypeBank(CLASSES, d, decay=decay)
    features, labels = draw(seed, b=5, d=d)
    bank.update(features, labels)
    return bank


def state(bank: PrototypeBank) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in bank.state_dict().items()}


def assert_same(bank: PrototypeBank, before: dict[str, Tensor]) -> None:
    assert bank.state_dict().keys() == before.keys()
    for name, value in bank.state_dict().items():
        assert torch.equal(value, before[name]), name


def losses(features: Tensor, labels: Tensor, prototypes: Tensor, seen: Tensor | None) -> list[Tensor]:
    reductions = ("mean", "sum", "none")
    return [
        *(prototypical_cross_entropy(features, labels, prototypes, seen=seen, reduction=r) for r in reductions),
        *(prototype_entropy(features, prototypes, seen=seen, reduction=r) for r in reductions),
    ]


# law 3: distance


@some
@given(seeds, st.sampled_from([1, 3, 768]), st.sampled_from(DTYPES), scales)
def test_distance_to_a_coincident_prototype_is_exactly_zero_with_a_finite_gradient(seed, d, dtype, scale) -> None:
    features, labels = draw(seed, b=32, d=d, scale=scale, dtype=dtype)
    features.requires_grad_()
    prototypes = features.detach().clone()
    logits = prototype_logits(features, prototypes)
    assert torch.equal(logits.diagonal(), torch.zeros(32, dtype=logits.dtype))
    logits.diagonal().sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))
    features.grad = None
    sum(loss.sum() for loss in losses(features, labels, prototypes, None)).backward()
    assert features.grad.isfinite().all()


# law 3: bank


@some
@given(seeds, scales, st.permutations(range(6)))
def test_order_inside_a_batch_is_irrelevant(seed, scale, order) -> None:
    features, labels = draw(seed, scale=scale)
    one, other = filled(seed), filled(seed)
    one.update(features, labels)
    other.update(features[order], labels[order])
    assert torch.equal(one.seen, other.seen)
    torch.testing.assert_close(one.prototypes, other.prototypes, rtol=1e-5, atol=1e-6 * max(scale, 1.0))


@some
@given(seeds, st.integers(0, 6))
def test_parts_of_a_batch_accumulate_to_the_batch(seed, cut) -> None:
    features, labels = draw(seed)
    one, parts = filled(seed), filled(seed)
    one.update(features, labels)
    parts.accumulate(features[:cut], labels[:cut])
    parts.accumulate(features[cut:], labels[cut:])
    parts.commit()
    assert torch.equal(one.seen, parts.seen)
    torch.testing.assert_close(one.prototypes, parts.prototypes)


@some
@given(seeds, st.floats(0.0, 1.0))
def test_an_absent_class_does_not_decay(seed, decay) -> None:
    bank = filled(seed, decay=decay)
    before = state(bank)
    features, labels = draw(seed + 1, b=2)
    bank.update(features, labels)
    absent = [c for c in range(CLASSES) if c not in labels]
    assert torch.equal(bank.prototypes[absent], before["prototypes"][absent])
    assert torch.equal(bank.seen[absent], before["seen"][absent])


@some
@given(seeds, st.floats(0.0, 1.0), st.sampled_from(DTYPES), scales)
def test_first_sight_sets_the_mean_exactly(seed, decay, dtype, scale) -> None:
    bank = PrototypeBank(CLASSES, 5, decay=decay)
    features, _ = draw(seed, b=2, scale=scale, dtype=dtype)
    bank.update(features, torch.tensor([1, 1]))
    assert bank.seen.tolist() == [False, True, False, False]
    assert torch.equal(bank.prototypes[1], features.float().sum(0) / 2)
    bank.update(features[:1], torch.tensor([3]))
    assert torch.equal(bank.prototypes[3], features[0].float())


@some
@given(seeds, broken, st.integers(0, 5), st.integers(0, 4))
def test_a_non_finite_batch_leaves_the_buffers_while_its_loss_stays_non_finite(seed, value, row, column) -> None:
    bank = filled(seed)
    features, labels = draw(seed)
    features[row, column] = value
    before = state(bank)
    loss = losses(features, labels, bank.prototypes, bank.seen)
    bank.update(features, labels)
    assert_same(bank, before)
    assert not any(value.isfinite().all() for value in loss)


@some
@given(seeds, broken, st.integers(0, 2))
def test_a_non_finite_batch_among_others_is_skipped_and_the_others_count(seed, value, position) -> None:
    batches = [draw(seed + i) for i in range(2)]
    one, other = filled(seed), filled(seed)
    for features, labels in batches:
        one.accumulate(features, labels)
    poison = draw(seed + 9)
    poison[0][3] = value
    for features, labels in [*batches[:position], poison, *batches[position:]]:
        other.accumulate(features, labels)
    assert_same(other, state(one))


def test_an_overflow_of_finite_features_is_skipped_as_well() -> None:
    bank = PrototypeBank(CLASSES, 1, decay=0.0)
    before = state(bank)
    bank.update(torch.full((4, 1), 3e38), torch.zeros(4, dtype=torch.int64))
    assert_same(bank, before)


@some
@given(seeds)
def test_a_commit_of_nothing_changes_nothing_and_a_commit_starts_over(seed) -> None:
    bank = filled(seed)
    assert not bank.sums.any()
    assert not bank.counts.any()
    before = state(bank)
    bank.commit()
    bank.update(torch.empty(0, 5), torch.empty(0, dtype=torch.int64))
    assert_same(bank, before)


# law 3: unseen classes


@some
@given(seeds, masks)
def test_a_class_never_seen_is_out_of_the_denominator_whatever_its_row_holds(seed, seen) -> None:
    assume(seen.any())
    features, _ = draw(seed)
    prototypes, labels = draw(seed + 1, b=CLASSES)[0], seen.nonzero().flatten()[[0] * 6]
    kept = prototypes[seen]
    prototypes[~seen] = float("nan")
    features.requires_grad_()
    actual = losses(features, labels, prototypes, seen)
    assert torch.equal(prototype_logits(features, prototypes, seen=seen)[:, seen], prototype_logits(features, kept))
    assert prototype_logits(features, prototypes, seen=seen)[:, ~seen].isneginf().all()
    gradient = torch.autograd.grad(sum(v.sum() for v in actual), features)[0]
    expected = losses(features, torch.zeros_like(labels), kept, None)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)
    torch.testing.assert_close(gradient, torch.autograd.grad(sum(v.sum() for v in expected), features)[0])


@some
@given(seeds, masks)
def test_a_sample_of_an_unseen_class_has_weight_zero(seed, seen) -> None:
    features, labels = draw(seed)
    prototypes, _ = draw(seed + 1, b=CLASSES)
    features.requires_grad_()
    known = seen[labels]
    assume(known.any())
    loss = prototypical_cross_entropy(features, labels, prototypes, seen=seen)
    torch.testing.assert_close(
        loss, prototypical_cross_entropy(features[known], labels[known], prototypes, seen=seen), rtol=1e-6, atol=1e-6
    )
    loss.backward()
    assert not features.grad[~known].any()
    each = prototypical_cross_entropy(features, labels, prototypes, seen=seen, reduction="none")
    assert not each[~known].any()


@some
@given(seeds, st.sampled_from(DTYPES), scales, st.integers(0, 6))
def test_with_none_left_the_loss_is_zero_connected_with_gradient_zero(seed, dtype, scale, b) -> None:
    features, labels = draw(seed, b=b, scale=scale, dtype=dtype)
    features.requires_grad_()
    bank = PrototypeBank(CLASSES, 5, decay=0.5)
    assert bank(features).isneginf().all()
    with torch.autograd.set_detect_anomaly(True):  # a NaN on the way back, even one that is masked later, raises
        for loss in losses(features, labels, bank.prototypes, bank.seen):
            assert not loss.any()
            (gradient,) = torch.autograd.grad(loss.sum(), features)
            assert torch.equal(gradient, torch.zeros_like(features))


@some
@given(seeds, broken)
def test_with_none_left_a_non_finite_feature_still_makes_the_loss_non_finite(seed, value) -> None:
    features, labels = draw(seed)
    features[2, 1] = value
    bank = PrototypeBank(CLASSES, 5, decay=0.5)
    assert not any(loss.isfinite().all() for loss in losses(features, labels, bank.prototypes, bank.seen))


@some
@given(seeds, masks, scales)
def test_entropy_lies_between_zero_and_the_logarithm_of_the_seen_classes(seed, seen, scale) -> None:
    assume(seen.any())
    features, _ = draw(seed, scale=scale)
    prototypes, _ = draw(seed + 1, b=CLASSES, scale=scale)
    entropy = prototype_entropy(features, prototypes, seen=seen, reduction="none")
    assert (entropy >= -1e-6).all()
    assert (entropy <= seen.sum().log() + 1e-6).all()


# law 3: a snapshot


@some
@given(seeds)
def test_an_update_between_loss_and_backward_changes_nothing(seed) -> None:
    features, labels = draw(seed)
    one, other = filled(seed), filled(seed)
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    taken = other.prototypes
    before = taken.clone()
    expected = sum(v.sum() for v in losses(x, labels, one.prototypes, one.seen)) + one(x)[:, one.seen].sum()
    actual = sum(v.sum() for v in losses(y, labels, taken, other.seen)) + other(y)[:, other.seen].sum()
    for _ in range(2):
        other.update(features * 3, labels)
    assert torch.equal(taken, before)
    expected.backward()
    actual.backward()
    assert torch.equal(x.grad, y.grad)


# law 8


@some
@given(seeds, st.sampled_from(DTYPES))
def test_dtypes_are_computed_in_float32_or_wider(seed, dtype) -> None:
    features, labels = draw(seed, dtype=dtype)
    wide = torch.promote_types(dtype, torch.float32)
    bank = filled(seed).to(dtype)
    assert (bank.prototypes.dtype, bank.sums.dtype, bank.counts.dtype) == (wide, wide, torch.int64)
    exact = filled(seed).double()
    bank.accumulate(features, labels)
    exact.accumulate(features.double(), labels)
    torch.testing.assert_close(bank.sums.double(), exact.sums, rtol=1e-5, atol=1e-5)
    pairs = zip(
        losses(features, labels, bank.prototypes, bank.seen),
        losses(features.double(), labels, exact.prototypes, exact.seen),
        strict=True,
    )
    for actual, expected in pairs:
        assert actual.dtype == wide
        torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)


@some
@given(seeds)
def test_autocast_does_not_narrow(seed) -> None:
    features, labels = draw(seed)
    bank = filled(seed)
    expected = losses(features, labels, bank.prototypes, bank.seen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = losses(features, labels, bank.prototypes, bank.seen)
        bank.accumulate(features, labels)
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)
    plain = filled(seed)
    plain.accumulate(features, labels)
    assert_same(plain, state(bank))


@some
@given(seeds, st.sampled_from([torch.float32, torch.float64]))
def test_copies_pickles_and_reloads_go_on_bit_for_bit(seed, dtype) -> None:
    bank = filled(seed).to(dtype)
    features, labels = draw(seed, dtype=dtype)
    bank.accumulate(features, labels)  # in the middle of an accumulation
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    loaded = PrototypeBank(CLASSES, 5, decay=0.5).to(dtype)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank)), loaded):
        assert_same(other, state(bank))
        reference = copy.deepcopy(bank)
        for each in (reference, other):
            each.update(features + 1, labels)
        assert_same(other, state(reference))


def test_a_long_accumulation_keeps_its_digits() -> None:
    """A million samples in float32: each batch is summed on its own before it joins the running sum."""
    bank = PrototypeBank(1, 1, decay=0.0)
    features, labels = torch.full((1000, 1), 1.1), torch.zeros(1000, dtype=torch.long)
    for _ in range(1000):
        bank.accumulate(features, labels)
    bank.commit()
    assert abs(bank.prototypes.item() / 1.1 - 1) < 2e-4


@pytest.mark.parametrize("distance", [1e2, 1e4, 1e6])
def test_losses_keep_small_differences_of_large_distances(distance: float) -> None:
    prototypes = torch.tensor([[distance, 0.0], [-distance, 0.0]])
    features, labels = torch.zeros(1, 2), torch.tensor([0])
    for loss in (
        prototypical_cross_entropy(features, labels, prototypes),
        prototype_entropy(features, prototypes),
    ):
        assert abs(loss.item() - math.log(2)) < 1e-6
