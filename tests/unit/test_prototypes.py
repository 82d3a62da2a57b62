import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from balancekit.prototypes import (
    PrototypeBank,
    prototype_entropy,
    prototype_logits,
    prototypical_cross_entropy,
    single_side_labels,
)
from tests.compiling import fullgraph


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_distances_at_width_768_are_exact_where_the_product_form_is_not() -> None:
    features = torch.randn(64, 768, generator=torch.Generator().manual_seed(0))
    assert not prototype_logits(features, features).diagonal().any()
    assert torch.cdist(features, features).diagonal().any()


def test_cross_entropy_is_torchs_where_every_class_is_seen() -> None:
    features, prototypes = torch.randn(6, 5), torch.randn(4, 5)
    labels = torch.tensor([0, 1, 2, 3, 3, 0])
    for reduction in ("mean", "sum", "none"):
        torch.testing.assert_close(
            prototypical_cross_entropy(features, labels, prototypes, reduction=reduction),
            F.cross_entropy(prototype_logits(features, prototypes), labels, reduction=reduction),
        )


def test_gradients_are_those_of_finite_differences() -> None:
    features = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    prototypes = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels, seen = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([True, False, True, True])
    assert torch.autograd.gradcheck(
        lambda f, p: prototypical_cross_entropy(f, labels, p, seen=seen), (features, prototypes)
    )
    assert torch.autograd.gradcheck(lambda f, p: prototype_entropy(f, p, seen=seen), (features, prototypes))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integer_dtype(dtype: torch.dtype) -> None:
    features, labels = torch.randn(3, 2), torch.tensor([0, 2, 2])
    one, other = PrototypeBank(3, 2, decay=0.0), PrototypeBank(3, 2, decay=0.0)
    one.update(features, labels)
    other.update(features, labels.to(dtype))
    assert torch.equal(one.prototypes, other.prototypes)
    assert torch.equal(
        prototypical_cross_entropy(features, labels, one.prototypes, seen=one.seen),
        prototypical_cross_entropy(features, labels.to(dtype), one.prototypes, seen=one.seen),
    )
    assert single_side_labels(torch.tensor([True, False, False]), labels.to(dtype)).tolist() == [0, 3, 3]


def test_decay_is_the_weight_of_the_old_prototype() -> None:
    bank = PrototypeBank(1, 1, decay=0.25)
    bank.update(torch.zeros(1, 1), torch.tensor([0]))
    bank.update(torch.full((1, 1), 8.0), torch.tensor([0]))
    assert bank.prototypes.item() == 6.0


def test_a_bank_of_one_class_and_width_starts_empty_and_takes_decay_up_to_both_ends() -> None:
    for decay in (0.0, 1.0):
        bank = PrototypeBank(1, 1, decay=decay)
        assert bank.decay == decay
        assert [value.tolist() for value in bank.buffers()] == [[[0.0]], [False], [[0.0]], [0]]
        assert [value.dtype for value in bank.buffers()] == [torch.float32, torch.bool, torch.float32, torch.int64]


def test_accumulated_sums_and_counts_wait_for_the_commit() -> None:
    bank = PrototypeBank(4, 2, decay=0.5)
    bank.accumulate(torch.tensor([[1.0, 2.0], [3.0, 5.0], [-1.0, 0.0]]), torch.tensor([2, 0, 2]))
    bank.accumulate(torch.tensor([[7.0, 1.0]]), torch.tensor([0], dtype=torch.int32))
    assert bank.sums.tolist() == [[10.0, 6.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    assert bank.counts.tolist() == [2, 0, 2, 0]
    assert not bank.seen.any()
    bank.commit()
    assert bank.prototypes.tolist() == [[5.0, 3.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert bank.seen.tolist() == [True, False, True, False]
    assert not bank.counts.any()
    assert not bank.sums.any()


@pytest.mark.parametrize(("default", "wide"), [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
def test_a_bank_has_the_default_dtype_or_a_wider_one(default: torch.dtype, wide: torch.dtype) -> None:
    torch.set_default_dtype(default)
    try:
        bank = PrototypeBank(2, 3, decay=0.5)
        assert bank.prototypes.dtype == bank.sums.dtype == wide
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("features", "prototypes", "wide"),
    [
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.float64, torch.float32, torch.float64),
        (torch.bfloat16, torch.float64, torch.float64),
    ],
)
def test_logits_are_in_the_wider_of_both_dtypes_and_at_least_float32(
    features: torch.dtype, prototypes: torch.dtype, wide: torch.dtype
) -> None:
    logits = prototype_logits(torch.tensor([[0.0, 3.0]]).to(features), torch.tensor([[4.0, 0.0]]).to(prototypes))
    assert logits.dtype == wide
    assert logits.tolist() == [[-5.0]]


def test_the_mean_is_over_the_samples_of_seen_classes() -> None:
    features = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    prototypes, seen = torch.tensor([[0.0], [9.0], [2.0]], dtype=torch.float64), torch.tensor([True, False, True])
    labels = torch.tensor([0, 1, 2])
    each = [math.log(1 + math.exp(-2.0)), 0.0, math.log(1 + math.exp(-2.0))]  # distances 0 and 2; 3 and 1
    for reduction, expected in (("none", each), ("sum", sum(each)), ("mean", sum(each) / 2)):
        found = prototypical_cross_entropy(features, labels, prototypes, seen=seen, reduction=reduction)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


def test_the_mean_of_the_entropy_is_over_all_samples() -> None:
    features = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    prototypes, seen = torch.tensor([[0.0], [9.0], [2.0]], dtype=torch.float64), torch.tensor([True, False, True])
    near, far = 1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(2.0))
    doubt = -near * math.log(near) - far * math.log(far)
    each = [doubt, math.log(2), doubt]
    for reduction, expected in (("none", each), ("sum", sum(each)), ("mean", sum(each) / 3)):
        found = prototype_entropy(features, prototypes, seen=seen, reduction=reduction)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)
    assert prototype_entropy(features, prototypes).item() != found.item()


def test_domains_count_up_to_the_largest_int32() -> None:
    top = torch.iinfo(torch.int32).max - 1
    labels = single_side_labels(torch.tensor([False, True]), torch.tensor([top, top]))
    assert labels.tolist() == [top + 1, 0]
    assert labels.dtype == torch.int64
    with pytest.raises(ValueError, match="domain"):
        single_side_labels(torch.tensor([False]), torch.tensor([top + 1]))


def test_a_bank_takes_no_gradient_and_gives_the_features_one() -> None:
    bank, features = PrototypeBank(2, 3, decay=0.5), torch.randn(4, 3, requires_grad=True)
    bank.update(features, torch.tensor([0, 1, 0, 1]))
    assert not any(buffer.requires_grad for buffer in bank.buffers())
    assert not list(bank.parameters())
    bank(features).sum().backward()
    assert features.grad is not None


def test_a_pass_in_inference_mode_leaves_buffers_that_train() -> None:
    bank = PrototypeBank(2, 3, decay=0.5)
    with torch.inference_mode():
        bank.accumulate(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert not any(buffer.is_inference() for buffer in bank.buffers())
    with torch.inference_mode():
        bank.commit()
    assert not any(buffer.is_inference() for buffer in bank.buffers())
    features = torch.randn(4, 3, requires_grad=True)
    prototypical_cross_entropy(features, torch.tensor([0, 1, 0, 1]), bank.prototypes, seen=bank.seen).backward()
    assert features.grad is not None


def test_casting_the_model_around_a_bank_loses_nothing() -> None:
    bank = PrototypeBank(1, 1, decay=0.5)
    bank.update(torch.full((1, 1), 1 / 3), torch.tensor([0]))
    exact = bank.prototypes
    for cast in (nn.Module.half, nn.Module.bfloat16, nn.Module.float):
        model = cast(nn.Sequential(nn.Linear(1, 1), bank))
        assert torch.equal(bank.prototypes, exact)
        assert bank.prototypes.dtype == torch.float32
        assert model[1] is bank
    assert bank.double().prototypes.dtype == torch.float64
    assert bank.half().prototypes.dtype == torch.float32


def test_a_narrow_default_dtype_does_not_narrow_a_bank() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert PrototypeBank(1, 1, decay=0.5).prototypes.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_counts_are_exact_beyond_what_bfloat16_can_count() -> None:
    bank = PrototypeBank(1, 1, decay=0.5).bfloat16()
    for _ in range(3):
        bank.accumulate(torch.ones(200, 1, dtype=torch.bfloat16), torch.zeros(200, dtype=torch.int64))
    assert bank.counts.item() == 600
    assert bank.sums.item() == 600


def test_state_dict_keys_and_repr() -> None:
    bank = PrototypeBank(3, 2, decay=0.2)
    assert list(bank.state_dict()) == ["prototypes", "seen", "sums", "counts"]
    assert repr(bank) == "PrototypeBank(num_classes=3, dim=2, decay=0.2)"


def test_a_saved_state_is_not_changed_by_later_updates() -> None:
    bank = PrototypeBank(2, 2, decay=0.5)
    bank.update(torch.ones(2, 2), torch.tensor([0, 1]))
    state = bank.state_dict()
    bank.update(torch.zeros(2, 2), torch.tensor([0, 1]))
    assert state["prototypes"].eq(1).all()
    bank.load_state_dict(state)
    assert bank.prototypes.eq(1).all()


def test_ssp_lowers_itself() -> None:
    torch.manual_seed(0)
    encoder, bank = nn.Linear(4, 3), PrototypeBank(3, 3, decay=0.2)
    x, live, domain = torch.randn(60, 4), torch.arange(60) % 2 == 0, torch.arange(60) // 30
    labels = single_side_labels(live, domain)
    x[torch.arange(60), labels] += 3
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.3)
    history = []
    for _ in range(40):
        features = encoder(x)
        loss = prototypical_cross_entropy(features, labels, bank.prototypes, seen=bank.seen)
        bank.update(features, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[0] == 0.0  # nothing was seen yet
    assert history[-1] < 0.5 * history[1]


def test_full_graph_compile_equals_eager() -> None:
    def step(features, live, domain, prototypes, seen):
        labels = single_side_labels(live, domain)
        logits = prototype_logits(features, prototypes, seen=seen)
        cross_entropy = prototypical_cross_entropy(features, labels, prototypes, seen=seen)
        return logits, cross_entropy, prototype_entropy(features, prototypes, seen=seen)

    bank, features = PrototypeBank(4, 5, decay=0.5), torch.randn(6, 5)
    domain = torch.tensor([0, 1, 2, 1, 0, 1])
    bank.update(features, single_side_labels(domain == 1, domain % 3))
    inputs = (features, domain == 1, domain % 3, bank.prototypes, bank.seen)
    for actual, expected in zip(fullgraph(step)(*inputs), step(*inputs), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("poisoned", [False, True])
def test_a_compiled_bank_equals_an_eager_one(poisoned: bool) -> None:
    eager, bank = PrototypeBank(4, 5, decay=0.5), PrototypeBank(4, 5, decay=0.5)
    update = fullgraph(bank.update)
    forward = fullgraph(bank)
    for step in range(3):
        features, labels = torch.randn(6, 5), torch.randint(4, (6,))
        if poisoned and step == 1:
            features[0] = float("nan")
        eager.update(features, labels)
        update(features, labels)
        assert torch.equal(bank.seen, eager.seen)
        torch.testing.assert_close(bank.prototypes, eager.prototypes)
        torch.testing.assert_close(forward(features[1:]), eager(features[1:]))
    assert not bank.counts.any()
