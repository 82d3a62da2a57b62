import math

import pytest
import torch

from balancekit.modulation import (
    AGM,
    ARL,
    CGGM,
    MLB,
    MSLR,
    OGM,
    OPM,
    SMP,
    EpistemicModulation,
    agm_ratio,
    discrepancy_ratio,
    entropy_score,
    miles_coefficient,
    pdmp_coefficient,
    slice_logits,
    squared_error_score,
    true_class_score,
    utilisation,
)
from tests.oracles import modulation as oracle

NAMES = ("audio", "video", "text")


def drawn(seed: int, modalities: int = 2, batch: int = 6, classes: int = 4):
    g = torch.Generator().manual_seed(seed)
    logits = {m: 2 * torch.randn(batch, classes, generator=g, dtype=torch.float64) for m in NAMES[:modalities]}
    return logits, torch.randint(classes, (batch,), generator=g)


def close(actual, expected) -> None:
    actual = torch.stack(list(actual.values())) if isinstance(actual, dict) else actual
    torch.testing.assert_close(actual.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def sums(logits, labels) -> list[float]:
    return [oracle.true_class(o.tolist(), labels.tolist()) for o in logits.values()]


seeds = pytest.mark.parametrize("seed", range(6))


@seeds
@pytest.mark.parametrize("alpha", [0.1, 0.8, 2.6])
@pytest.mark.parametrize("reference", ["pairwise", "others", "min"])
def test_ogm_is_equations_8_to_10_for_two(seed: int, alpha: float, reference: str) -> None:
    logits, labels = drawn(seed)
    close(OGM(alpha, reference=reference)(logits, labels), oracle.ogm_two(sums(logits, labels), alpha))


@seeds
def test_ogm_for_three_takes_the_mean_of_pairs(seed: int) -> None:
    logits, labels = drawn(seed, 3)
    close(OGM(0.3)(logits, labels), oracle.ogm_pairwise(sums(logits, labels), 0.3))


def test_ogm_jumps_at_one_unless_continuous() -> None:
    labels = torch.zeros(1, dtype=torch.long)
    logits = {"a": torch.tensor([[1e-9, 0.0]], dtype=torch.float64), "b": torch.zeros(1, 2, dtype=torch.float64)}
    assert OGM(0.8)(logits, labels)["a"].item() == pytest.approx(0.336, abs=1e-3)
    assert OGM(0.8, continuous=True)(logits, labels)["a"].item() == pytest.approx(1.0, abs=1e-8)


@seeds
@pytest.mark.parametrize("modalities", [2, 3])
def test_mlb(seed: int, modalities: int) -> None:
    logits, labels = drawn(seed, modalities)
    close(MLB(0.8)(logits, labels), oracle.mlb(sums(logits, labels), 0.8))
    close(MLB(0.8, ceiling=4.0)(logits, labels), oracle.mlb(sums(logits, labels), 0.8, 4.0))


@seeds
def test_mlb_for_regression_puts_errors_the_other_way_round(seed: int) -> None:
    predictions, _ = drawn(seed, 3)
    target = torch.randn(6, 4, generator=torch.Generator().manual_seed(100 + seed), dtype=torch.float64)
    errors = squared_error_score(predictions, target).mean(0).tolist()
    literal = [
        sum((p - t) ** 2 for row, goal in zip(o.tolist(), target.tolist(), strict=True)
            for p, t in zip(row, goal, strict=True)) / 24
        for o in predictions.values()
    ]  # fmt: skip
    assert errors == pytest.approx(literal)
    close(MLB(task="regression")(predictions, target), oracle.mlb_regression(literal, 0.8))


@seeds
def test_agm_follows_its_running_means(seed: int) -> None:
    agm, history = AGM(2, 1.5).double(), []
    for step in range(4):
        logits, labels = drawn(10 * seed + step)
        history.append([oracle.cross_entropy(o.tolist(), labels.tolist()) for o in logits.values()])
        close(agm(logits, labels), oracle.agm_two(history, 1.5))
    held = {name: value.clone() for name, value in agm.state_dict().items()}
    agm.eval()(logits, labels)
    assert all(torch.equal(value, held[name]) for name, value in agm.state_dict().items())


@seeds
def test_agm_for_three_is_the_released_form(seed: int) -> None:
    s = torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    close(agm_ratio(s, present=torch.ones(3, dtype=torch.bool)), oracle.agm_three_ratio(s.tolist()))


def test_agm_is_capped() -> None:
    agm, labels = AGM(2).double(), torch.zeros(1, dtype=torch.long)
    flat = torch.zeros(1, 2, dtype=torch.float64)
    agm({"audio": flat + torch.tensor([9.0, 0.0]), "video": flat}, labels)
    agm.ratio.total.copy_(torch.tensor([0.0, 20.0]))  # as if audio had always been far ahead
    agm.ratio.steps.fill_(1)
    assert agm.eval()({"audio": flat, "video": flat}, labels)["audio"].item() == pytest.approx(math.exp(10))


def test_cggm_as_released_explodes_and_in_its_bounds_does_not() -> None:
    gains = [[0.06, 0.02, 0.0], [0.05, -0.05, 0.0], [0.02, 0.01, -0.025]]
    for d in gains:
        released, bounded = CGGM(NAMES, released=True).double(), CGGM(NAMES).double()
        for each in (released, bounded):
            each(dict.fromkeys(NAMES, 0.5))
        now = {m: torch.tensor(0.5 + x, dtype=torch.float64) for m, x in zip(NAMES, d, strict=True)}
        exact = [now[m].float().double().item() - 0.5 for m in NAMES]
        values = torch.stack(list(released(now).values()))
        torch.testing.assert_close(
            values.double(), torch.tensor(oracle.cggm(exact, 1.3), dtype=torch.float64), rtol=1e-4, atol=1e-6
        )
        k = torch.stack(list(bounded(now).values()))
        assert (k >= 0).all()
        assert (k <= 1.3).all()
    assert max(abs(x) for x in oracle.cggm(gains[1], 1.3)) > 5e6


@seeds
def test_arl(seed: int) -> None:
    logits, labels = drawn(seed)
    h = [oracle.entropy(o.tolist()) for o in logits.values()]
    close(entropy_score(logits).mean(0), h)
    loud = [sum(abs(x) for row in o.tolist() for x in row) / o.numel() for o in logits.values()]
    close(ARL()(logits, labels), oracle.arl_two(h, loud, 8.0))
    close(ARL(released=True)(logits, labels), [1.5, 1.5])


@seeds
def test_opm(seed: int) -> None:
    logits, labels = drawn(seed)
    close(OPM(0.4, 0.5)(logits, labels), oracle.opm_two(sums(logits, labels), 0.4, 0.5))


@pytest.mark.parametrize("alone", [[0.4, 0.75], [0.75, 0.4], [0.6, 0.55]])
def test_miles(alone: list[float]) -> None:
    used = utilisation(0.8, {"audio": alone[1], "video": alone[0]})
    close(miles_coefficient(used), oracle.miles_two(0.8, alone, 0.2, 0.5))


def test_mslr_over_more_epochs_than_its_window() -> None:
    g, history = torch.Generator().manual_seed(0), []
    mslr = MSLR({"audio": 0.9, "video": 1.1})
    for _ in range(8):
        history.append((0.2 + torch.rand(2, generator=g)).tolist())
        close(mslr(dict(zip(("audio", "video"), history[-1], strict=True))), oracle.mslr([0.9, 1.1], history))


@seeds
def test_epistemic_modulation_per_sample(seed: int) -> None:
    u = torch.rand(5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k = EpistemicModulation(2.0)({"audio": u[:, 0], "video": u[:, 1]})
    close(torch.stack([k["audio"], k["video"]], 1), [oracle.epistemic_two(row, 2.0) for row in u.tolist()])


@pytest.mark.parametrize("modalities", [2, 3])
def test_slices_of_a_head_add_up_to_it(modalities: int) -> None:
    widths = (3, 5, 2)[:modalities]
    head = torch.nn.Linear(sum(widths), 4, dtype=torch.float64)
    features = {m: torch.randn(7, w, dtype=torch.float64) for m, w in zip(NAMES, widths, strict=False)}
    parts = slice_logits(head, features)
    torch.testing.assert_close(sum(parts.values()), head(torch.cat(list(features.values()), 1)), rtol=1e-12, atol=1e-12)
    start = 0
    for m, z in features.items():
        expected = z @ head.weight[:, start : start + z.shape[1]].T + head.bias / modalities
        torch.testing.assert_close(parts[m], expected, rtol=1e-12, atol=1e-12)
        start += z.shape[1]


@seeds
def test_every_reference_is_the_other_one_for_two(seed: int) -> None:
    logits, labels = drawn(seed)
    s = true_class_score(logits, labels)
    expected = torch.stack([s[:, 0] / s[:, 1], s[:, 1] / s[:, 0]], 1)
    for reference in ("others", "pairwise", "min"):
        torch.testing.assert_close(discrepancy_ratio(s, reference=reference), expected, rtol=1e-12, atol=0)


@seeds
@pytest.mark.parametrize("modalities", [2, 3])
def test_smp_silences_the_one_that_is_ahead(seed: int, modalities: int) -> None:
    logits, labels = drawn(seed, modalities)
    close(SMP()(logits, labels), oracle.smp(sums(logits, labels)))


def test_a_tie_at_the_top_suppresses_nobody() -> None:
    same = torch.tensor([[0.0, 3.0]])
    logits = {"audio": same, "video": same, "text": torch.zeros(1, 2)}
    assert [k.item() for k in SMP()(logits, torch.tensor([1])).values()] == [1.0, 1.0, 1.0]


def test_pdmp_lets_the_one_that_is_best_alone_lead() -> None:
    for performance in ([0.6, 0.4], [0.3, 0.7], [0.5, 0.2, 0.6]):
        k = pdmp_coefficient(dict(zip(NAMES, performance, strict=False)), dominant=1.4, rest=0.7)
        close(k, oracle.pdmp(performance, 1.4, 0.7))
