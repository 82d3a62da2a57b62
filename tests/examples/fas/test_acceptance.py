"""The measurements of the stand-in, on data whose answer is known, and one cheap bound on the generator itself."""

import numpy as np
import pytest
import torch
from fas.samples import MODALITIES, Samples
from fas.standin import make_split
from fas.standin.acceptance import FUSIONS, Figure, identity_auc, oracle
from fas.standin.judgement import judge
from fas.standin.probe import probe
from fas.standin.shortcuts import outline, shortcut_auc, shortcuts, statistics


def noise(count: int, seed: int) -> Samples:
    """Images that know nothing of their label."""
    random = torch.Generator().manual_seed(seed)
    images = [torch.randint(1, 200, (count, c, 64, 64), dtype=torch.uint8, generator=random) for c in (3, 1, 1)]
    index = torch.arange(count)
    return Samples(*images, index % 2 == 0, index % 2, 0 * index, index // 2 % 24, torch.zeros(count, 3, 8, 8).byte())


def numbers(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    return samples.live.numpy(), samples.identity.numpy()


def test_nothing_is_found_where_nothing_is():
    samples = noise(300, 0)
    for area in shortcuts(samples, seed=0).values():
        assert 0.35 < area < 0.65


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_planted_brightness_is_found_in_its_modality_only(modality):
    samples = noise(200, 1)
    brighter = getattr(samples, modality) + (20 * samples.live).byte()[:, None, None, None]
    found = shortcuts(samples._replace(**{modality: brighter}), seed=0)
    for m in MODALITIES:
        assert (found[f"six numbers of {m}"] > 0.99) == (m == modality)


def test_a_planted_outline_is_found():
    samples = noise(200, 2)
    samples.rgb[samples.live, :, :, :4] = 0
    assert shortcuts(samples, seed=0)["outline"] > 0.99


def test_a_number_that_knows_the_person_but_not_the_label_is_worth_nothing():
    """Each person is mostly live or mostly attacked, and recognisable: worth much on them, nothing on others."""
    random = np.random.default_rng(0)
    who = np.arange(1200) % 24
    live = random.random(1200) < np.where(who % 2, 0.95, 0.05)
    name = random.permutation(24)[who].astype(np.float32)[:, None]
    assert 0.2 < shortcut_auc(name, live, who, seed=0) < 0.8
    assert shortcut_auc(name, live, np.arange(1200), seed=0) > 0.85  # had the people not been kept apart


def test_statistics_and_outline_of_an_image_known_by_hand():
    image = np.zeros((1, 3, 10, 10), np.uint8)
    image[:, 0, :, :5], image[:, 1, :, :5] = 90, 30
    mean, deviation, dark, bright, rough, saturation = statistics(image)[0]
    assert (mean, deviation, dark, bright, rough, saturation) == pytest.approx((20, 20, 0, 40, 0, 45))
    samples = noise(1, 0)._replace(rgb=torch.from_numpy(image))
    assert outline(samples)[0] == pytest.approx([50, 2, 4.5, 2, 8.25, 0, 0, 5, 0, 0])
    assert statistics(image[:, 2:])[0, 5] == 1  # all black


def test_an_oracle_finds_the_one_score_that_knows_though_it_be_upside_down():
    samples, random = noise(400, 3), np.random.default_rng(3)
    live, _ = numbers(samples)
    table = np.stack([random.random(400), np.where(live, 0.3, 0.7) + 0.05 * random.standard_normal(400)], 1)
    joined = oracle(table, samples)
    assert (joined[live][:, None] > joined[~live]).mean() > 0.98


def test_identity_alone_is_at_chance_at_the_natural_ratios():
    areas = [identity_auc(domain, seed) for domain in "SCWP" for seed in range(3)]
    assert abs(np.mean(areas) - 0.5) < 0.02


def figures(single: dict[str, float], joint: float, mean: float, early: dict[str, float]) -> list[Figure]:
    fused = dict(zip(FUSIONS, (joint, mean, mean), strict=True))
    return [Figure("target", "W", m, v) for m, v in (single | fused).items()] + [
        Figure("early", "W", m, v) for m, v in early.items()
    ]


def test_judgement_of_figures_known_by_hand():
    single, early = {"rgb": 0.8, "depth": 0.7, "infrared": 0.6}, {"rgb": 0.6, "depth": 0.7, "infrared": 0.5}
    lines = judge(figures(single, 0.75, 0.82, early))
    assert [(line.criterion, line.met) for line in lines] == [("a", True), ("b", True), ("c", True), ("f", True)]
    lines = judge(figures(single, 0.91, 0.82, {"rgb": 0.9, "depth": 0.7, "infrared": 0.5}))
    assert [(line.criterion, line.met) for line in lines] == [("a", False), ("b", False), ("c", False), ("f", False)]


def test_a_shortcut_is_judged_by_its_worst_seed_and_the_rest_by_their_mean():
    shown = [Figure("shortcut", "S", "outline", v) for v in (0.5, 0.71)]
    shown += [Figure("e", "S", "concatenation", v) for v in (0.94, 0.98)]
    shown += [Figure("mark share", "S", "depth", 0.06)]
    assert [(line.criterion, line.met) for line in judge(shown)] == [
        ("shortcut", False),
        ("mark share", False),
        ("e", True),
    ]


def test_a_probe_learns_what_is_plain_and_says_how_early():
    samples = noise(320, 4)
    samples.depth[samples.live] //= 4
    train, rest = samples.select(range(256)), samples.select(range(256, 320))
    known = probe(train, rest, [rest], ["depth"], 0, epochs=2)
    (score,) = known.scores
    assert known.early > 0.9 and (score[rest.live][:, None] > score[~rest.live]).mean() > 0.99
    assert probe(train, rest, [rest], ["infrared"], 0, epochs=1).early < 0.75


def test_six_numbers_of_an_image_hardly_tell_live_from_attack():
    """A bound with room for a small sample of one domain; ``fas_standin.py accept`` measures them all."""
    for name, area in shortcuts(make_split("P", "test", 240, seed=21), seed=0).items():
        assert area < 0.75, name
