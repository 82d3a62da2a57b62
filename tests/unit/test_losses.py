import itertools
import math
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from balancekit.losses import (
    confidence_ranking_loss,
    cosine_logits,
    decouple,
    feature_distillation,
    gblend_weights,
    lfm_loss,
    lfm_schedule,
    tcmax_loss,
    unimodal_distillation,
    unimodal_loss,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
NAMES = ("audio", "touch", "video")
NAN = float("nan")


def draw(seed: int = 0, names=NAMES, b: int = 4, c: int = 3) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(b, c, generator=g, dtype=torch.float64) for m in names}


def labels_of(x) -> torch.Tensor:
    return torch.arange(len(next(iter(x.values())))) % 3


def teachers_of(x) -> dict[str, torch.Tensor]:
    """Numbers that do not depend on `x`, and are the same in every dtype."""
    b, c = next(iter(x.values())).shape
    pattern = torch.arange(b * c).view(b, c)
    return {m: (((7 + i) * pattern + i) % 11 - 5).to(x[m].dtype) / 4 for i, m in enumerate(NAMES) if m in x}


def ranked(x, **options) -> torch.Tensor:
    """The first column is the confidence of a modality, the second that of it and a later one."""
    one = {m: v[:, 0] for m, v in x.items()}
    more = {(m, n): x[m][:, 1] for m in x for n in x if m < n}
    return confidence_ranking_loss({**one, **more}, **options)


def distilled(x) -> torch.Tensor:
    return unimodal_distillation(x, teachers_of(x), x, teachers_of(x))


def angles(x) -> torch.Tensor:
    logits = cosine_logits(x, {m: z[:3] for m, z in teachers_of(x).items()})
    return sum(F.cross_entropy(o, labels_of(x)) for o in logits.values())


# each a function of one tensor "b 3" a modality
LOSSES = {
    "tcmax": lambda x: tcmax_loss(x, labels_of(x)),
    "tcmax-released": lambda x: tcmax_loss(x, labels_of(x), released=True),
    "unimodal": lambda x: unimodal_loss(x, labels_of(x), weight=4.0),
    "lfm": lambda x: lfm_loss(x, labels_of(x), 0.3),
    "feature-distillation": lambda x: feature_distillation(x, teachers_of(x)),
    "unimodal-distillation": distilled,
    "ranking": ranked,
    "ranking-batch": partial(ranked, per_sample=False),
    "cosine": angles,
}
EVERY = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


# what holds for all


@EVERY
def test_gradients_are_those_of_finite_differences(loss) -> None:
    x = draw(0)
    values = [v.requires_grad_() for v in x.values()]
    assert torch.autograd.gradcheck(lambda *v: loss(dict(zip(x, v, strict=True))), values)
    assert all(g.any() for g in torch.autograd.grad(loss(x), values))


@EVERY
def test_the_order_of_the_modalities_is_irrelevant(loss) -> None:
    x = draw(2)
    for order in (("video", "audio", "touch"), ("touch", "video", "audio")):
        torch.testing.assert_close(loss({m: x[m] for m in order}), loss(x), rtol=1e-13, atol=1e-13)


@EVERY
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_are_computed_in_float32_or_wider(loss, dtype) -> None:
    x = {m: v.to(dtype) for m, v in draw(3).items()}
    wide = torch.promote_types(dtype, torch.float32)
    actual = loss(x)
    assert actual.dtype == wide
    assert torch.equal(actual, loss({m: v.to(wide) for m, v in x.items()}))


@EVERY
def test_one_wide_modality_makes_the_loss_wide(loss) -> None:
    x = {m: v.to(torch.float64 if m == "touch" else torch.bfloat16) for m, v in draw(3).items()}
    assert loss(x).dtype == torch.float64


@EVERY
@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_non_finite_inputs_are_not_hidden(loss, value, name) -> None:
    x = draw(4)
    x[name][1] = value
    assert not loss(x).isfinite()


@EVERY
def test_large_numbers_overflow_nowhere(loss) -> None:
    x = {m: 30 * v for m, v in draw(5, b=64).items()}
    single = {m: v.float().requires_grad_() for m, v in x.items()}
    actual = loss(single)
    torch.testing.assert_close(actual.double(), loss(x), rtol=1e-6, atol=0)
    assert all(g.isfinite().all() for g in torch.autograd.grad(actual, list(single.values())))


@EVERY
def test_losses_are_captured_in_one_graph(loss) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own, about itself
        captured = torch.compile(loss, fullgraph=True, backend="aot_eager")
        for b in (4, 7, 9):  # the second size makes the batch axis a symbol
            x = {m: v.requires_grad_() for m, v in draw(6, b=b).items()}
            actual, expected = captured(x), loss(x)
            torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)
            gradients = (torch.autograd.grad(y, list(x.values())) for y in (actual, expected))
            torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-13)


def test_gblend_weights_are_captured_in_one_graph() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        captured = torch.compile(gblend_weights, fullgraph=True, backend="aot_eager")
        losses = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
        assert torch.equal(captured(*losses), gblend_weights(*losses))


# TCMax


def test_tcmax_is_zero_for_equal_logits_and_negative_where_they_tell_the_classes_apart() -> None:
    zero = {m: torch.zeros(6, 3, dtype=torch.float64) for m in NAMES}
    labels = torch.arange(6) % 3
    torch.testing.assert_close(tcmax_loss(zero, labels), zero["audio"].sum(), rtol=0, atol=1e-14)
    sure = {m: 100 * F.one_hot(labels, 3).double() for m in NAMES}
    # three modalities and a label that say the same of 3 classes: total correlation 3 log 3
    assert tcmax_loss(sure, labels).item() == pytest.approx(-3 * math.log(3), rel=1e-13)


def test_tcmax_of_one_sample_of_one_modality_is_cross_entropy_less_a_constant() -> None:
    logits, labels = draw(7, names=("audio",), b=1), torch.tensor([2])
    expected = F.cross_entropy(logits["audio"], labels) - math.log(3)
    torch.testing.assert_close(tcmax_loss(logits, labels), expected, rtol=1e-13, atol=1e-13)


def test_tcmax_as_released_differs_by_a_constant() -> None:
    logits = draw(8)
    values = [v.requires_grad_() for v in logits.values()]
    losses = [tcmax_loss(logits, torch.arange(4) % 3, released=released) for released in (True, False)]
    assert (losses[0] - losses[1]).item() == pytest.approx(2 * math.log(4) + math.log(3), rel=1e-13)
    for g, e in zip(*(torch.autograd.grad(loss, values) for loss in losses), strict=True):
        assert torch.equal(g, e)


def test_tcmax_does_not_see_a_constant_on_all_logits_of_a_modality() -> None:
    logits, labels = draw(9), torch.arange(4) % 3
    moved = {m: v + (5.0 if m == "touch" else -3.0) for m, v in logits.items()}
    torch.testing.assert_close(tcmax_loss(moved, labels), tcmax_loss(logits, labels), rtol=1e-13, atol=1e-13)


def test_tcmax_stays_finite_where_a_sum_of_exponentials_is_not() -> None:
    logits = {m: 30 * v.float() for m, v in draw(10, b=32, c=10).items()}
    assert sum(logits.values()).exp().sum().isinf()
    assert tcmax_loss(logits, torch.arange(32) % 10).isfinite()


def test_a_saturated_modality_starves_the_other_under_cross_entropy_and_not_under_tcmax() -> None:
    labels = torch.arange(8) % 3
    audio = 15.0 * F.one_hot(labels, 3).double()
    video = draw(11, names=("video",), b=8)["video"].requires_grad_()
    (starved,) = torch.autograd.grad(F.cross_entropy(audio + video, labels), video)
    (fed,) = torch.autograd.grad(tcmax_loss({"audio": audio, "video": video}, labels), video)
    assert starved.norm() < 1e-4
    assert fed.norm() > 1e-2


# MMCosine


def test_the_size_of_features_and_weights_is_irrelevant_to_cosine_logits() -> None:
    features, weights = draw(12), draw(13, b=5)
    logits = cosine_logits(features, weights)
    for size in (1e-30, 1e30):
        large = {m: (v * size).float() for m, v in features.items()}
        actual = cosine_logits(large, {m: v.float() / size for m, v in weights.items()})
        for m in NAMES:
            torch.testing.assert_close(actual[m].double(), logits[m], rtol=0, atol=1e-5)


def test_cosine_logits_reach_the_scale_and_no_further() -> None:
    feature = torch.tensor([[3.0, 4.0]])
    logits = cosine_logits({"a": feature}, {"a": torch.cat([feature, -2 * feature])}, scale=15.0)
    torch.testing.assert_close(logits["a"], torch.tensor([[15.0, -15.0]]))


@pytest.mark.parametrize("zero", ["features", "weights", "both"])
def test_a_vector_of_zeros_has_cosine_zero_and_a_small_gradient(zero: str) -> None:
    feature, weight = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    if zero != "weights":
        feature[0] = 0
    if zero != "features":
        weight[0] = 0
    feature.requires_grad_()
    weight.requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        logits = cosine_logits({"a": feature}, {"a": weight})["a"]
        logits.square().sum().backward()
    assert logits[0, 0].item() == 0.0
    assert logits[1, 1].item() == pytest.approx(20 / math.sqrt(5))
    for value in (feature, weight):
        assert value.grad.isfinite().all()
        assert value.grad.abs().max() < 1e3


def test_cosine_logits_keep_the_order_of_the_features() -> None:
    features = draw(14)
    assert list(cosine_logits(features, {m: features[m] for m in reversed(NAMES)})) == list(NAMES)


# CML


def test_the_hinge_is_per_sample() -> None:
    both, one = torch.tensor([0.25, 0.75]), torch.tensor([0.75, 0.25])
    confidences = {"audio": one, "video": one, ("audio", "video"): both}
    assert confidence_ranking_loss(confidences).item() == 0.5
    assert confidence_ranking_loss(confidences, per_sample=False).item() == 0.0


def test_more_confidence_from_more_modalities_costs_nothing() -> None:
    confidences = {"a": torch.tensor([0.5, 0.9]), ("a", "v"): torch.tensor([0.5, 1.0])}
    assert confidence_ranking_loss(confidences).item() == 0.0


def test_only_samples_that_count_weigh() -> None:
    small, large = (torch.tensor(v, requires_grad=True) for v in ([0.9, 0.9], [0.5, 0.5]))
    confidences = {"a": small, ("a", "v"): large}
    counts = {("v", "a"): torch.tensor([True, False])}
    loss = confidence_ranking_loss(confidences, counts=counts)
    loss.backward()
    assert loss.item() == pytest.approx(0.2, rel=1e-6)
    assert torch.equal(small.grad, torch.tensor([0.5, 0.0]))  # down
    assert torch.equal(large.grad, torch.tensor([-0.5, 0.0]))  # up
    with torch.no_grad():
        small[1] = NAN
    assert confidence_ranking_loss(confidences, counts=counts).isnan()


def test_steps_of_one_modality_or_all_pairs() -> None:
    confidences = {"a": torch.tensor([0.9]), ("a", "v"): torch.tensor([0.5]), ("a", "v", "t"): torch.tensor([0.25])}
    assert confidence_ranking_loss(confidences).item() == pytest.approx(0.4 + 0.25, rel=1e-6)
    assert confidence_ranking_loss(confidences, all_pairs=True).item() == pytest.approx(0.4 + 0.25 + 0.65, rel=1e-6)


def test_a_set_is_a_name_a_tuple_or_a_frozenset() -> None:
    small, large = torch.tensor([0.9]), torch.tensor([0.5])
    expected = confidence_ranking_loss({"ab": small, ("ab", "c"): large})
    assert expected > 0
    for one, two_ in ((("ab",), ("c", "ab")), (frozenset({"ab"}), frozenset({"ab", "c"}))):
        assert torch.equal(confidence_ranking_loss({one: small, two_: large}), expected)


# distillation


def test_teachers_get_no_gradient_and_their_own_output_costs_nothing() -> None:
    student = {m: v.requires_grad_() for m, v in draw(15).items()}
    teacher = {m: v.requires_grad_() for m, v in draw(16).items()}
    unimodal_distillation(student, teacher, student, teacher).backward()
    assert all(v.grad is None for v in teacher.values())
    assert all(v.grad.any() for v in student.values())
    assert feature_distillation(teacher, teacher).item() == 0.0
    assert unimodal_distillation(teacher, teacher, teacher, teacher).item() == pytest.approx(0.0, abs=1e-15)


def test_features_may_have_any_shape() -> None:
    tokens = torch.arange(12.0).view(2, 3, 2)
    loss = feature_distillation({"a": tokens, "b": torch.zeros(2)}, {"a": tokens + 2, "b": torch.ones(2)})
    assert loss.item() == 5.0


# DGL


def test_decoupled_losses_train_head_and_encoders_apart() -> None:
    torch.manual_seed(0)
    encoders = nn.ModuleDict({m: nn.Linear(3, 5) for m in NAMES})
    heads = nn.ModuleDict({m: nn.Linear(5, 2) for m in NAMES})
    head, labels = nn.Linear(15, 2), torch.tensor([0, 1, 1, 0])
    x = {m: v.float() for m, v in draw(17).items()}
    z = {m: encoders[m](x[m]) for m in NAMES}
    joint = F.cross_entropy(head(torch.cat([*decouple(z).values()], dim=-1)), labels)
    alone = unimodal_loss({m: heads[m](z[m]) for m in NAMES}, labels, weight=4.0)
    (joint + alone).backward()
    expected = torch.autograd.grad(
        F.cross_entropy(heads["audio"](encoders["audio"](x["audio"])), labels) * 4.0, encoders["audio"].weight
    )[0]
    torch.testing.assert_close(encoders["audio"].weight.grad, expected)
    assert head.weight.grad.any()


# G-Blending


def test_gblend_weights_by_hand() -> None:
    before = torch.ones(3, dtype=torch.float64)
    train, val = before - torch.tensor([0.6, 0.2, 0.3]), before - torch.tensor([0.2, 0.1, 0.3])
    worth = torch.tensor([0.2 / 0.4**2, 0.1 / 0.1**2, 0.3 / 1e-4**2], dtype=torch.float64)
    actual = gblend_weights(before, train, before, val)
    torch.testing.assert_close(actual, worth / worth.sum(), rtol=1e-6, atol=0)  # the inputs are of float32 precision


@pytest.mark.parametrize("online", [False, True])
def test_gblend_weights_are_finite_and_sum_to_one(online: bool) -> None:
    before = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    for train, val in (([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]), ([0.5, 1.5, 1.0], [0.4, 1.0, 1.0])):
        w = gblend_weights(before, torch.tensor(train), before, torch.tensor(val), online=online)
        assert not w.requires_grad
        assert (w >= 0).all()
        assert w.sum().item() == pytest.approx(1.0, rel=1e-13)


def test_overfitting_less_than_before_is_no_reason_for_a_small_weight() -> None:
    before = torch.ones(3, dtype=torch.float64)
    val = torch.full_like(before, 0.5)
    none, much_less, more = 0.5, 0.9, 0.4
    w = gblend_weights(before, torch.tensor([none, much_less, more], dtype=torch.float64), before, val)
    assert w[0] == w[1]
    assert w[2] < 1e-5


def test_the_online_form_bounds_the_worth_of_a_tiny_gap() -> None:
    before, val = torch.ones(2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    train = torch.tensor([0.5, 0.499], dtype=torch.float64)  # gaps of 0 and 1e-3
    ratio = {online: gblend_weights(before, train, before, val, online=online) for online in (False, True)}
    assert (ratio[False][0] / ratio[False][1]).item() == pytest.approx(1e-6 / 1e-8, rel=1e-9)
    assert (ratio[True][0] / ratio[True][1]).item() == pytest.approx(2e-6 / 1.01e-6, rel=1e-9)


def test_where_no_validation_loss_moved_the_weights_are_equal_and_a_nan_is_not_hidden() -> None:
    still, train = torch.ones(4), torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert torch.equal(gblend_weights(still, train, still, still), torch.full((4,), 0.25))
    assert gblend_weights(still, train, still, torch.tensor([1.0, NAN, 1.0, 0.5])).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gblend_weights_are_in_float32_or_wider(dtype) -> None:
    losses = [v.to(dtype) for v in torch.rand(4, 3, generator=torch.Generator().manual_seed(0))]
    wide = torch.promote_types(dtype, torch.float32)
    actual = gblend_weights(*losses)
    assert actual.dtype == wide
    assert torch.equal(actual, gblend_weights(*(v.to(wide) for v in losses)))


# LFM


def test_disagreement_lies_between_zero_and_the_logarithm_of_the_number_of_modalities() -> None:
    labels = torch.arange(4) % 3
    same = draw(18, names=("audio",))["audio"]
    assert lfm_loss(dict.fromkeys(NAMES, same), labels, 0.0).item() == pytest.approx(0.0, abs=1e-15)
    apart = {m: torch.eye(3, dtype=torch.float64)[[i] * 4] * 200 for i, m in enumerate(NAMES)}
    assert lfm_loss(apart, labels, 0.0).item() == pytest.approx(2 * math.log(3), rel=1e-13)


def test_alpha_moves_from_labels_to_agreement() -> None:
    logits, labels = draw(19), torch.arange(4) % 3
    mean = torch.stack(list(logits.values())).mean(0)
    torch.testing.assert_close(lfm_loss(logits, labels, 1.0), 2 * F.cross_entropy(mean, labels), rtol=1e-13, atol=0)
    assert torch.equal(lfm_loss(logits, labels, 0.0), lfm_loss(logits, (labels + 1) % 3, 0.0))
    values = [lfm_schedule(step, 50) for step in range(101)]
    assert values[0] == 0.95
    assert all(a > b for a, b in itertools.pairwise(values[:51]))
    assert set(values[50:]) == {0.05}
    assert lfm_schedule(1, 2, start=0.1, end=0.5) == pytest.approx(0.3)
