import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from balancekit.domains import (
    asymmetric_triplet_loss,
    normalise_features,
    reversal_strength,
    reverse_gradient,
    single_side_adversarial_loss,
)
from tests.compiling import fullgraph

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
some = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)
broken = st.sampled_from([float("nan"), float("inf"), float("-inf")])


def draw(seed: int, b: int = 7, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, d, generator=g), torch.randint(d, (b,), generator=g)


# reversal


@some
@given(seeds, st.floats(0.0, 10.0), st.sampled_from(DTYPES), st.booleans())
def test_the_gradient_is_really_reversed(seed, strength, dtype, as_tensor) -> None:
    x = draw(seed)[0].to(dtype).requires_grad_()
    g = draw(seed + 1)[0].to(dtype)
    y = reverse_gradient(x, torch.tensor(strength) if as_tensor else strength)
    assert torch.equal(y, x)
    y.backward(g)
    assert x.grad.dtype == dtype
    torch.testing.assert_close(x.grad, (-strength * g.double()).to(dtype))


def test_the_encoder_climbs_what_the_discriminator_descends() -> None:
    torch.manual_seed(0)
    encoder, discriminator = nn.Linear(4, 3), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2))
    x, domain, live = torch.randn(16, 4), torch.arange(16) % 2, torch.ones(16, dtype=torch.bool)

    def loss(features: torch.Tensor) -> torch.Tensor:
        return single_side_adversarial_loss(discriminator(features), domain, live)

    plain = torch.autograd.grad(loss(encoder(x)), [encoder.weight, discriminator[1].weight])
    reversed_ = torch.autograd.grad(loss(reverse_gradient(encoder(x), 0.5)), [encoder.weight, discriminator[1].weight])
    torch.testing.assert_close(reversed_[0], -0.5 * plain[0])
    torch.testing.assert_close(reversed_[1], plain[1])


def test_no_gradient_flows_to_the_strength_and_a_second_derivative_exists() -> None:
    x, strength = torch.ones(3, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    (first,) = torch.autograd.grad((reverse_gradient(x, strength) ** 3).sum(), x, create_graph=True)
    assert torch.equal(first, torch.full((3,), -6.0))
    first.sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 24.0))  # reversed twice
    assert strength.grad is None


def test_reversal_strength_rises_from_zero_to_one() -> None:
    values = [reversal_strength(step, 50) for step in range(101)]
    assert values[0] == 0.0
    assert values == sorted(values)
    assert 0.9999 < values[50] < values[100] <= 1.0
    assert reversal_strength(10**9, 1) == 1.0


# adversarial loss


@some
@given(seeds)
def test_attacks_weigh_nothing_in_the_adversarial_loss(seed) -> None:
    logits, domain = draw(seed)
    live = torch.arange(7) % 3 > 0
    logits.requires_grad_()
    loss = single_side_adversarial_loss(logits, domain, live)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits[live], domain[live]))
    loss.backward()
    assert not logits.grad[~live].any()
    assert logits.grad[live].any()


@some
@given(seeds, st.integers(0, 7))
def test_without_genuine_samples_the_adversarial_loss_is_zero_and_connected(seed, b) -> None:
    logits, domain = draw(seed, b=b)
    logits.requires_grad_()
    loss = single_side_adversarial_loss(logits, domain, torch.zeros(b, dtype=torch.bool))
    assert loss.item() == 0.0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


# triplet loss


@some
@given(seeds, st.booleans(), st.integers(0, 7))
def test_without_triplets_the_triplet_loss_is_zero_and_connected(seed, squared, b) -> None:
    features, _ = draw(seed, b=b)
    features.requires_grad_()
    for labels in (torch.zeros(b, dtype=torch.int64), torch.arange(b)):  # no negatives, no positives
        loss = asymmetric_triplet_loss(features, labels, squared=squared)
        assert loss.item() == 0.0
        (gradient,) = torch.autograd.grad(loss, features)
        assert torch.equal(gradient, torch.zeros_like(features))


@some
@given(seeds, st.booleans(), st.permutations(range(7)))
def test_order_is_irrelevant_to_the_triplet_loss(seed, squared, order) -> None:
    features, labels = draw(seed)
    torch.testing.assert_close(
        asymmetric_triplet_loss(features[order], labels[order], squared=squared),
        asymmetric_triplet_loss(features, labels, squared=squared),
    )


@pytest.mark.parametrize("squared", [False, True])
def test_coincident_samples_have_a_finite_gradient(squared: bool) -> None:
    features = torch.ones(6, 4, requires_grad=True)
    loss = asymmetric_triplet_loss(features, torch.arange(6) % 2, squared=squared)
    torch.testing.assert_close(loss, torch.tensor(0.1))
    loss.backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("squared", [False, True])
def test_triplet_gradients_are_those_of_finite_differences(squared: bool) -> None:
    features = draw(3)[0].double().requires_grad_()
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda x: asymmetric_triplet_loss(x, labels, squared=squared), features)


def test_separated_clusters_cost_nothing() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    features = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    assert asymmetric_triplet_loss(features, labels).item() == 0.0
    assert asymmetric_triplet_loss(features, labels, margin=10.0).item() > 0.0


@some
@given(seeds, broken, st.integers(0, 6))
def test_non_finite_inputs_make_non_finite_losses(seed, value, row) -> None:
    x, labels = draw(seed)
    x[row, 1] = value
    live = torch.arange(7) != row  # the broken sample weighs nothing
    assert not asymmetric_triplet_loss(x, labels).isfinite()
    assert not asymmetric_triplet_loss(x, torch.zeros_like(labels)).isfinite()
    assert not single_side_adversarial_loss(x, labels, live).isfinite() or value == float("-inf")
    assert not normalise_features(x)[row].isfinite().all()


# normalisation


@some
@given(seeds, st.sampled_from([1e-30, 1e-10, 1.0, 1e10, 1e30]), st.sampled_from(DTYPES))
def test_rows_have_the_promised_length_at_every_scale(seed, scale, dtype) -> None:
    x = (draw(seed)[0] * scale).to(dtype)
    length = x.double().norm(dim=-1)
    tolerance = {"rtol": 2e-2 if dtype == torch.bfloat16 else 1e-5, "atol": 0.0}
    unit, released = normalise_features(x), normalise_features(x, released=True)
    assert unit.dtype == released.dtype == dtype
    torch.testing.assert_close(unit.double().norm(dim=-1), torch.ones_like(length), **tolerance)
    torch.testing.assert_close(released.double().norm(dim=-1), (length / 2).sqrt(), **tolerance)


@pytest.mark.parametrize("released", [False, True])
def test_zero_rows_stay_zero_with_a_finite_gradient(released: bool) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        y = normalise_features(x, released=released)
        y.sum().backward()
    assert not y[0].any()
    assert (x.grad.abs() <= 1).all()
    features = torch.zeros(4, 2, requires_grad=True)
    asymmetric_triplet_loss(normalise_features(features), torch.tensor([0, 0, 1, 1])).backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("released", [False, True])
def test_normalisation_gradients_are_those_of_finite_differences(released: bool) -> None:
    x = draw(0)[0].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: normalise_features(x, released=released), x)


def test_a_head_of_normalised_weights_sees_angles_alone() -> None:
    features, weight = draw(0)[0], draw(1, b=2)[0]
    logits = nn.functional.linear(normalise_features(features), normalise_features(weight))
    torch.testing.assert_close(logits[:, 0], nn.functional.cosine_similarity(features, weight[:1]))


# law 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_come_in_float32_or_wider(dtype: torch.dtype) -> None:
    x, labels = draw(0)
    for loss in (
        lambda x: asymmetric_triplet_loss(x, labels),
        lambda x: single_side_adversarial_loss(x, labels, labels > 0),
    ):
        narrow = loss(x.to(dtype))
        assert narrow.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(narrow.double(), loss(x.to(dtype).double()), rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(x.to(dtype)), narrow)


def test_full_graph_compile_equals_eager() -> None:
    def step(x: torch.Tensor, labels: torch.Tensor, strength: float) -> torch.Tensor:
        adversarial = single_side_adversarial_loss(reverse_gradient(x, strength), labels, labels > 0)
        return adversarial + asymmetric_triplet_loss(normalise_features(x), labels)

    x, labels = draw(0)
    compiled = fullgraph(step)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    actual, expected = compiled(a, labels, 0.5), step(b, labels, 0.5)
    torch.testing.assert_close(actual, expected)
    actual.backward()
    expected.backward()
    torch.testing.assert_close(a.grad, b.grad)
