"""The efficacy study: nobody sees the test part, differences are paired, and it can say "no gain"."""

import pytest
import torch
from efficacy_parts import work
from efficacy_parts.methods import METHODS, SYSTEMS
from efficacy_parts.sets import SETS
from efficacy_parts.sets.multimodal import Multimodal, stratified
from efficacy_parts.sets.satimage import positions, tiles
from efficacy_parts.sets.simulated import imbalance
from efficacy_parts.sets.watch import unseen
from efficacy_parts.tables import Table
from efficacy_parts.training import Run, Solo, hits, measure, train, trained
from efficacy_parts.verdicts import difference
from efficacy_parts.work import Results, Unit, grid, key, left


def small() -> Multimodal:
    """The simulated set, cut down."""
    data = imbalance()
    rows = torch.arange(0, 3000, 4)[:748] + torch.arange(748) % 5
    labels = data.labels[rows]
    views = {m: x[rows] for m, x in data.views.items()}
    return Multimodal("small", views, labels, stratified(labels), epochs=12)


def run(data: Multimodal, optimizer: str = "SGD", seed: int = 0) -> Run:
    split = data.split(seed)
    made = Run(data, split, optimizer, seed)
    z = made.features(torch.arange(len(split.labels)))
    with torch.no_grad():
        logits = made.model.alone(z)
    y = split.labels[split.val]
    return Run(
        data, split, optimizer, seed, 1.0, Solo(z, logits, {m: hits(o[split.val], y) for m, o in logits.items()})
    )


# --- data ---


def test_tuning_sees_nothing_of_the_test_part() -> None:
    data = imbalance()
    final, tuning = data.split(3), data.split(3, tuning=True)
    parts = [set(rows.tolist()) for rows in (tuning.train, tuning.val, tuning.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert not set.union(*parts) & set(final.test.tolist())
    assert sorted([*final.train, *final.val, *final.test]) == sorted(torch.arange(3000))
    assert torch.equal(data.split(3).test, final.test)
    assert not torch.equal(data.split(4).test, final.test)
    x = final.views["sound"]
    torch.testing.assert_close(x[final.train].mean(0), torch.zeros(10), atol=1e-5, rtol=0)


def test_patches_find_their_place_and_tiles_share_no_pixel() -> None:
    scene = torch.randint(0, 100, (4, 62, 62), generator=torch.Generator().manual_seed(0))
    places = torch.cartesian_prod(torch.arange(60), torch.arange(60))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(1))
    places = places[order]
    patches = torch.stack([scene[:, r : r + 3, c : c + 3] for r, c in places.tolist()])
    assert torch.equal(positions(patches), places)
    train, test = tiles(places)(torch.arange(len(places)), torch.Generator().manual_seed(2))
    assert len(test) == 4 * 400
    apart = (places[train][:, None] - places[test][None]).abs().amax(-1)
    assert apart.min() == 3  # 3×3 patches at a distance of 3 touch, and share nothing


def test_tested_people_are_unseen() -> None:
    people = torch.arange(100) % 10
    rest, test = unseen(people)(torch.arange(100), torch.Generator().manual_seed(0))
    assert len(people[test].unique()) == 3
    assert not set(people[test].tolist()) & set(people[rest].tolist())


def test_the_simulated_picture_shows_its_class() -> None:
    data = imbalance()
    picture = data.views["picture"].reshape(3000, 3, 4, 2)
    bits = (picture.prod(-1).sum(-1) < 0).long()  # a product of signs is −1 where the bit is set
    read = (bits * torch.tensor([1, 2, 4])).sum(1)
    assert (read == data.labels).float().mean() > 0.9


# --- methods ---


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_method_trains(name: str, optimizer: str) -> None:
    data = small()
    made = run(data, optimizer)
    before = [p.clone() for p in made.model.encoders.parameters()]
    method, seconds = trained(made, SYSTEMS[name].make, SYSTEMS[name].default)
    assert any(not torch.equal(a, b) for a, b in zip(before, made.model.encoders.parameters(), strict=True))
    worth = measure(made, method, seconds)
    assert 100 / 8 < worth.accuracy <= 100
    assert worth.probe.keys() == worth.missing.keys() == data.views.keys()


@pytest.mark.parametrize(
    ("name", "settings"), [("OGM", {"alpha": 0.0}), ("AGM", {"alpha": 0.0}), ("PDMP", {"dominant": 1.0, "rest": 1.0})]
)
def test_a_strength_of_nothing_is_joint_training(name: str, settings: dict[str, float]) -> None:
    ours, theirs = run(small()), run(small())
    train(ours, SYSTEMS[name].make(ours, **settings))
    train(theirs, SYSTEMS["joint"].make(theirs))
    for a, b in zip(ours.model.encoders.parameters(), theirs.model.encoders.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_encoders_of_the_ensemble_are_trained_alone() -> None:
    """Whatever the other modality is."""
    data = small()
    other = Multimodal("other", {**data.views, "sound": data.views["sound"].flip(0)}, data.labels, data.draw, epochs=12)
    found = []
    for each in (data, other):
        made = run(each)
        train(made, SYSTEMS["ensemble"].make(made))
        found.append([p.clone() for p in made.model.encoders["picture"].parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# --- bookkeeping ---


def test_everybody_has_six_trials_of_which_the_first_is_the_default() -> None:
    for name, choice in SYSTEMS.items():
        trials = grid(name)
        assert len(trials) == len({repr(t) for t in trials}) == 6
        assert trials[0] == (choice.default, 1.0)
    assert len(METHODS) >= 20
    assert len(SETS) == 5


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(work.SETS, "small", small)
    unit = Unit("small", "SGD", 0, False, [("joint", {}, 1.0), ("OGM", {"alpha": 0.8}, 1.0)])
    results = Results(tmp_path / "t.jsonl")
    results.add(work.carry_out(unit._replace(trials=unit.trials[:1])))
    again = Results(tmp_path / "t.jsonl")
    assert left(unit, again).trials == unit.trials[1:]
    assert again.rows == results.rows
    assert key("small", "SGD", 0, "random", {}, 1.0) in again.rows


# --- words ---


def test_differences_are_paired_and_no_gain_is_said() -> None:
    gain = difference([81.0, 72.0, 93.0], [80.0, 71.0, 92.0])
    assert (gain.mean, gain.low, gain.high, gain.verdict) == (1.0, 1.0, 1.0, "gain")
    none = difference([3.0, 0.0, 1.0, -2.0], [0.0, 0.0, 0.0, 0.0])
    half = 3.182446 * (13 / 3) ** 0.5 / 2  # Student's 97.5 % quantile with three degrees of freedom
    assert none.mean == 0.5
    assert abs(none.high - none.low - 2 * half) < 1e-5
    assert none.verdict == "no gain"
    assert difference([0.0, 0.1], [1.0, 1.1]).verdict == "loss"


def test_the_best_trial_is_chosen_on_the_tuning_divisions_alone(tmp_path) -> None:
    results = Results(tmp_path / "t.jsonl")
    trials = grid("OGM")
    for i, (settings, rate) in enumerate(trials):
        for seed in work.TUNING_SEEDS:
            row = {"key": key("small", "SGD", seed, "OGM", settings, rate), "accuracy": 50.0 + (i == 4)}
            results.add([row])
        for seed in range(2):
            results.add([{"key": key("small", "SGD", seed, "OGM", settings, rate), "accuracy": 90.0 - 10 * (i == 4)}])
    assert results.best("small", "SGD", "OGM") == trials[4]
    tuned = Table(results, "small", "SGD", range(2)).tuned("OGM")
    assert tuned is not None
    assert [row["accuracy"] for row in tuned] == [80.0, 80.0]
