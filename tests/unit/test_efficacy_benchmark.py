"""The efficacy study: parts are apart, differences are paired, and it can say "no gain"."""

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
    rows = torch.arange(0, 2000, 3)[:660] + torch.arange(660) % 5
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


def test_parts_are_apart_and_training_alone_sets_the_scale() -> None:
    data = imbalance()
    split = data.split(3)
    assert sorted([*split.train, *split.val, *split.test]) == sorted(torch.arange(2000))
    assert [len(split.train), len(split.val), len(split.test)] == [1256, 144, 600]
    assert torch.equal(data.split(3).test, split.test)
    assert not torch.equal(data.split(4).test, split.test)
    x = split.views["sound"]
    torch.testing.assert_close(x[split.train].mean(0), torch.zeros(10), atol=1e-5, rtol=0)
    torch.testing.assert_close(x[split.train].std(0), torch.ones(10), atol=1e-4, rtol=0)


def test_patches_find_their_place_and_tiles_share_no_pixel() -> None:
    scene = torch.randint(0, 100, (4, 62, 62), generator=torch.Generator().manual_seed(0))
    places = torch.cartesian_prod(torch.arange(60), torch.arange(60))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(1))
    places = places[order]
    patches = torch.stack([scene[:, r : r + 3, c : c + 3] for r, c in places.tolist()])
    assert torch.equal(positions(patches), places)
    draw, generator = tiles(places), torch.Generator().manual_seed(2)
    rest, test = draw(torch.arange(len(places)), True, generator)
    train, val = draw(rest, False, generator)
    assert len(test) == 4 * 400
    assert 256 <= len(val) <= 400
    for one, other in ((rest, test), (train, val), (val, test)):
        apart = (places[one][:, None] - places[other][None]).abs().amax(-1)
        assert apart.min() >= 3  # 3×3 patches at a distance of 3 touch, and share nothing


def test_tested_people_are_unseen() -> None:
    people = torch.arange(100) % 10
    draw, generator = unseen(people), torch.Generator().manual_seed(0)
    rest, test = draw(torch.arange(100), True, generator)
    train, val = draw(rest, False, generator)
    parts = [set(people[rows].tolist()) for rows in (train, val, test)]
    assert [*map(len, parts)] == [6, 1, 3]
    assert len(set.union(*parts)) == 10


def test_the_simulated_picture_shows_its_class() -> None:
    data = imbalance()
    picture = data.views["picture"].reshape(2000, 3, 4, 2)
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


def test_everybody_has_four_trials_of_which_the_first_is_the_default() -> None:
    for name, choice in SYSTEMS.items():
        trials = grid(name)
        assert len(trials) == len({repr(t) for t in trials}) == 4
        assert trials[0] == (choice.default, 1.0)
    assert len(METHODS) >= 20
    assert len(SETS) == 5


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(work.SETS, "small", small)
    unit = Unit("small", "SGD", 0, True, [("joint", {}, 1.0), ("OGM", {"alpha": 0.8}, 1.0)])
    results = Results(tmp_path / "t.jsonl")
    results.add(work.carry_out(unit._replace(trials=unit.trials[:1])))
    again = Results(tmp_path / "t.jsonl")
    assert left(unit, again).trials == unit.trials[1:]
    assert again.rows == results.rows
    assert key("small", "SGD", 0, "random", {}, 1.0) in again.rows


def test_a_line_that_was_cut_short_is_done_again(tmp_path) -> None:
    path = tmp_path / "t.jsonl"
    Results(path).add([{"key": "a", "accuracy": 1.0}, {"key": "b", "accuracy": 2.0}])
    path.write_text(path.read_text()[:-9])
    assert [*Results(path).rows] == ["a"]
    Results(path).add([{"key": "c", "accuracy": 3.0}])
    assert [*Results(path).rows] == ["a", "c"]


def test_a_trial_is_chosen_in_each_division_on_its_validation_part(tmp_path) -> None:
    results, data = Results(tmp_path / "t.jsonl"), small()
    for seed, best in ((0, 2), (1, 0)):
        for i, trial in enumerate(grid("OGM")):
            found = {"accuracy": 10.0 * i + seed, "validation": 50.0 + (i == best)}
            results.add([{"key": key("small", "SGD", seed, "OGM", *trial), **found}])
    tuned = Table(results, data, "SGD", range(2)).tuned("OGM")
    assert tuned is not None
    assert [row["accuracy"] for row in tuned] == [20.0, 1.0]
    assert Table(results, data, "SGD", range(3)).tuned("OGM") is None  # not all is done


# --- words ---


def test_differences_are_paired_and_no_gain_is_said() -> None:
    gain = difference([81.0, 72.0, 93.0], [80.0, 71.0, 92.0], tested=0.5)
    assert (gain.mean, gain.low, gain.high, gain.verdict) == (1.0, 1.0, 1.0, "gain")
    wide = difference([3.0, 0.0, 1.0, -2.0], [0.0, 0.0, 0.0, 0.0], tested=0.5)
    half = 3.182446 * (13 / 3) ** 0.5 * (1 / 4 + 0.5) ** 0.5  # Student's 97.5 % quantile, three degrees of freedom
    assert wide.mean == 0.5
    assert abs(wide.high - wide.low - 2 * half) < 1e-5
    assert wide.verdict == "open"
    assert difference([0.2, -0.2, 0.1], [0.0, 0.0, 0.0], tested=0.5).verdict == "no gain"
    assert difference([0.0, 0.1], [1.0, 1.1], tested=0.5).verdict == "loss"
