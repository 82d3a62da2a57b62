import pytest
import torch

from balancekit.losses import (
    confidence_ranking_loss,
    cosine_logits,
    decouple,
    feature_distillation,
    gblend_weights,
    lfm_loss,
    tcmax_loss,
    unimodal_distillation,
    unimodal_loss,
)
from tests.oracles import losses as oracle

NAMES = ("audio", "video", "touch")
SEEDS = pytest.mark.parametrize("seed", range(3))
MODALITIES = pytest.mark.parametrize("modalities", [1, 2, 3])


def close(actual, expected) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def draw(seed: int, modalities: int, b: int = 4, c: int = 3, scale: float = 2.0):
    """Rows by modality, and labels."""
    g = torch.Generator().manual_seed(seed)
    rows = {m: scale * torch.randn(b, c, generator=g, dtype=torch.float64) for m in NAMES[:modalities]}
    return rows, torch.randint(c, (b,), generator=g)


def lists(rows) -> list:
    return [o.tolist() for o in rows.values()]


@SEEDS
@MODALITIES
def test_tcmax_is_the_sum_over_all_combinations(seed, modalities) -> None:
    logits, labels = draw(seed, modalities)
    close(tcmax_loss(logits, labels), oracle.tcmax_tuples(lists(logits), labels.tolist()))


@SEEDS
def test_tcmax_of_two_is_the_printed_equation_and_the_released_value(seed) -> None:
    logits, labels = draw(seed, 2, b=5, c=4)
    printed, released = oracle.tcmax_pairs(*lists(logits), labels.tolist())
    close(tcmax_loss(logits, labels), printed)
    close(tcmax_loss(logits, labels, released=True), released)


@SEEDS
@pytest.mark.parametrize("scale", [10.0, 15.0])
def test_cosine_logits(seed, scale) -> None:
    features = {"audio": draw(seed, 1)[0]["audio"], "video": draw(seed + 10, 1, c=5)[0]["audio"]}
    weights = {"audio": draw(seed + 20, 1, b=6)[0]["audio"], "video": draw(seed + 30, 1, b=6, c=5)[0]["audio"]}
    logits = cosine_logits(features, weights, scale=scale)
    for m in features:
        close(logits[m], oracle.cosine_logits(features[m].tolist(), weights[m].tolist(), scale))


@SEEDS
def test_confidence_ranking_of_two_is_the_printed_equation(seed) -> None:
    audio, video, both = torch.rand(3, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    actual = confidence_ranking_loss({"audio": audio, "video": video, ("video", "audio"): both})
    expected = oracle.ranking_two(audio.tolist(), video.tolist(), both.tolist())
    assert expected > 0
    close(actual, expected)


@SEEDS
@pytest.mark.parametrize("all_pairs", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_confidence_ranking_of_three(seed, all_pairs, masked) -> None:
    g = torch.Generator().manual_seed(seed)
    sets = [("a",), ("v",), ("t",), ("a", "v"), ("a", "t"), ("a", "v", "t")]  # not all of them
    confidences = {names: torch.rand(5, generator=g, dtype=torch.float64) for names in sets}
    counts = {names: torch.rand(5, generator=g) > 0.5 for names in (sets[3], sets[5])} if masked else {}
    actual = confidence_ranking_loss(confidences, counts=counts if masked else None, all_pairs=all_pairs)
    plain = {names: value.tolist() for names, value in confidences.items()}
    expected = oracle.ranking(plain, {t: v.tolist() for t, v in counts.items()}, steps=2 if all_pairs else 1)
    assert expected > 0
    close(actual, expected)


@SEEDS
@MODALITIES
def test_distillation(seed, modalities) -> None:
    logits, teacher_logits = draw(seed, modalities)[0], draw(seed + 10, modalities)[0]
    features, teachers = draw(seed + 20, modalities, c=7)[0], draw(seed + 30, modalities, c=7)[0]
    errors = sum(map(oracle.mean_squared_error, lists(features), lists(teachers)))
    divergences = sum(map(oracle.divergence, lists(teacher_logits), lists(logits)))
    close(feature_distillation(features, teachers), errors)
    close(unimodal_distillation(logits, teacher_logits, features, teachers), divergences + errors)
    weighed = unimodal_distillation(logits, teacher_logits, features, teachers, logit_weight=0.5, feature_weight=3.0)
    close(weighed, 0.5 * divergences + 3.0 * errors)


@SEEDS
@MODALITIES
def test_unimodal_loss(seed, modalities) -> None:
    logits, labels = draw(seed, modalities)
    expected = 4.0 * sum(oracle.cross_entropy(o, labels.tolist()) for o in lists(logits))
    close(unimodal_loss(logits, labels, weight=4.0), expected)


@SEEDS
@pytest.mark.parametrize(("online", "floor"), [(False, 0.0), (True, 1e-6)])
def test_gblend_weights(seed, online, floor) -> None:
    losses = torch.rand(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    growth = (losses[3] - losses[1]) - (losses[2] - losses[0])
    assert (growth > 0).any()
    losses[1, 0] = losses[3, 0] - losses[2, 0] + losses[0, 0] + 0.1  # the first overfits less than before
    close(gblend_weights(*losses, online=online), oracle.gblend(*losses.tolist(), floor))


@SEEDS
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_lfm_of_two_is_the_printed_equation(seed, alpha) -> None:
    logits, labels = draw(seed, 2)
    close(lfm_loss(logits, labels, alpha), oracle.lfm_two(*lists(logits), labels.tolist(), alpha))


@SEEDS
@MODALITIES
def test_lfm_of_any_number(seed, modalities) -> None:
    logits, labels = draw(seed, modalities)
    close(lfm_loss(logits, labels, 0.3), oracle.lfm_many(lists(logits), labels.tolist(), 0.3))


@SEEDS
def test_decoupled_learning_gives_each_part_the_gradient_of_its_own_loss(seed) -> None:
    g = torch.Generator().manual_seed(seed)
    _, labels = draw(seed, 2)
    z = {m: torch.randn(4, d, generator=g, dtype=torch.float64, requires_grad=True) for m, d in (("a", 2), ("v", 5))}
    heads = {m: torch.randn(3, x.shape[1], generator=g, dtype=torch.float64) for m, x in z.items()}
    head = torch.randn(3, 7, generator=g, dtype=torch.float64, requires_grad=True)
    fused = torch.cat([*decouple(z).values()], 1) @ head.T
    own = {m: x @ heads[m].T for m, x in z.items()}
    (torch.nn.functional.cross_entropy(fused, labels) + unimodal_loss(own, labels, weight=4.0)).backward()
    expected = oracle.decoupled_gradients(
        *lists(z), head.tolist(), [w.tolist() for w in heads.values()], labels.tolist(), 4.0
    )
    for x, rows in zip(z.values(), expected[0], strict=True):
        close(x.grad, rows)
    close(head.grad, expected[1])
