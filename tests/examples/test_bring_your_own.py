"""The four examples to bring one's own data to: each runs, and what it says of its data and its model is so."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples import audio_video, image_text, sensors, tabular_image

Table = dict[str, list[tuple[float, float]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[[ModuleType], Table]:
    """Run a script as small as it gets; returns its table, means and deviations by row."""

    def main(example: ModuleType) -> Table:
        monkeypatch.setattr("sys.argv", ["example", "--seeds", "2", "--epochs", "1"])
        example.main()
        header, *lines = capsys.readouterr().out.splitlines()
        assert header.startswith("%, mean ± sd of 2")
        assert all(column in header for column in example.COLUMNS)
        rows = {}
        for line in lines:
            cells = line[22:].replace("–", "nan ± nan").split()
            rows[line[:22].strip()] = [(float(a), float(b)) for a, b in zip(cells[::3], cells[2::3], strict=True)]
        return rows

    return main


@pytest.mark.parametrize("example", [audio_video, image_text, tabular_image])
def test_the_table_has_each_method_and_its_difference_to_joint_training(run, example: ModuleType) -> None:
    rows = run(example)
    others = list(example.METHODS)[1:]
    assert list(rows) == ["joint", *others, *(f"{method} − joint" for method in others)]
    for method in others:
        for joint, each, less in zip(rows["joint"], rows[method], rows[f"{method} − joint"], strict=True):
            assert np.isnan(joint[0]) or 0 <= joint[0] <= 100
            assert less[0] == pytest.approx(each[0] - joint[0], abs=0.11, nan_ok=True)  # of three rounded numbers
            assert np.isnan(less[1]) or less[1] >= 0


# --- audio and video


def drawn(size: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    return audio_video.draw(size, torch.Generator().manual_seed(0))


def gradients(part: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in part.parameters()]


def test_what_is_missing_is_nan_and_nothing_else_is() -> None:
    x, present, y = drawn(600)
    for m, v in x.items():
        assert torch.equal(v.isnan().flatten(1).all(1), ~present[m])
        assert torch.equal(v.isnan().flatten(1).any(1), ~present[m])
        assert 0.7 < present[m].float().mean() < 0.9
    assert (present["audio"] | present["video"]).all()
    assert y.unique().tolist() == list(range(6))


def test_two_classes_sound_like_two_others_and_none_looks_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: torch.zeros(*shape))
    x, present, y = drawn(600)
    pitches, headings = {}, {}
    for c in range(6):
        audio = x["audio"][(y == c) & present["audio"]][:, 0]
        pitches[c] = tuple((audio.amax(-1) > 0).all(0).nonzero().flatten().tolist())
        video = x["video"][(y == c) & present["video"]]
        moved = []
        for frame in (video[:, 0], video[:, -1]):
            mass = frame / frame.sum((1, 2), keepdim=True)
            moved.append(
                torch.stack([(mass.sum(2) * torch.arange(10)).sum(1), (mass.sum(1) * torch.arange(10)).sum(1)])
            )
        headings[c] = F.normalize((moved[1] - moved[0]).mean(1), dim=0)
    assert pitches[0] == pitches[4]
    assert pitches[1] == pitches[5]
    assert len(set(pitches.values())) == 4
    for c in range(6):
        cosines = [float(headings[c] @ headings[d]) for d in range(6) if d != c]
        assert max(cosines) < 0.7


def test_a_sample_without_video_leaves_the_video_encoder_alone() -> None:
    torch.manual_seed(0)
    x, present, y = drawn(40)
    model = audio_video.Late()

    def video_gradients(x: dict, present: dict, y: Tensor) -> list[Tensor]:
        model.zero_grad()
        F.cross_entropy(model(x, present)[0], y, reduction="sum").backward()
        return gradients(model.encoders["video"])

    whole = video_gradients(x, present, y)
    has = present["video"]
    there = video_gradients({m: v[has] for m, v in x.items()}, {m: p[has] for m, p in present.items()}, y[has])
    anything = {**x, "video": torch.where(has[:, None, None, None], x["video"], 1e6)}
    for all_of_them, those_with_video, filled in zip(whole, there, video_gradients(anything, present, y), strict=True):
        assert all_of_them.abs().max() > 0
        torch.testing.assert_close(all_of_them, those_with_video)
        assert torch.equal(all_of_them, filled)
    lacking = {m: v[~has] for m, v in x.items()}, {m: p[~has] for m, p in present.items()}, y[~has]
    assert all(not g.any() for g in video_gradients(*lacking))
    features = model(x, present)[1]
    assert not features["video"][~has].any()


@pytest.mark.parametrize("method", audio_video.METHODS)
def test_a_batch_in_which_nobody_has_video_trains(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, cross_entropy = [], F.cross_entropy

    def spy(*given) -> Tensor:
        losses.append(cross_entropy(*given))
        return losses[-1]

    monkeypatch.setattr(F, "cross_entropy", spy)
    x, present, y = drawn(40)
    present["video"] = torch.zeros(40, dtype=torch.bool)
    model = audio_video.train(method, x, present, y, epochs=1)
    assert len(losses) == (2 if method == "+ unimodal" else 1)
    assert all(loss.isfinite() for loss in losses)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_ogm_makes_the_updates_of_the_encoder_ahead_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_video, "OGM", lambda alpha: lambda logits, y, present: {"audio": torch.tensor(0.0)})
    x, present, y = drawn(50)
    torch.manual_seed(0)
    before = audio_video.Late().state_dict()
    torch.manual_seed(0)
    after = audio_video.train("+ OGM", x, present, y, epochs=1).state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith(("encoders.audio", "heads")), name


# --- image and text


def test_every_caption_is_true_and_half_of_them_say_the_digit() -> None:
    x, y = image_text.load(0)
    clear = 0
    for row, digit in zip(x["text"].tolist(), y.tolist(), strict=True):
        words = {image_text.WORDS[index] for index in row}
        named = words & set(image_text.DIGITS)
        clear += bool(named)
        assert named <= {image_text.DIGITS[digit]}
        assert not ({"odd", "even"} & words) or ("odd" in words) == (digit in (1, 3, 5, 7, 9))
        assert not ({"low", "high"} & words) or ("low" in words) == (digit in (0, 1, 2, 3, 4))
    assert 0.45 < clear / len(y) < 0.55


class Towers(nn.Module):
    """Its image feature is the label plus `shift`, its text feature the digit that a caption says."""

    nearness = image_text.Towers.nearness

    def __init__(self, shift: int, misled: bool) -> None:
        super().__init__()
        self.shift, self.misled, self.scale = shift, misled, torch.tensor(0.0)

    def text(self, tokens: Tensor) -> Tensor:
        return torch.stack([(tokens == image_text.WORDS.index(digit)).any(1).float() for digit in image_text.DIGITS], 1)

    def forward(self, x: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        z = {"image": F.one_hot((x["image"] + self.shift) % 10, 10).float(), "text": self.text(x["text"])}
        return z["image"] - 2 * self.misled * z["text"], z


def test_retrieval_and_classification_are_right_if_and_only_if_the_features_are() -> None:
    x, y = image_text.load(0)
    x["image"] = y
    assert image_text.test(Towers(shift=0, misled=False), x, y) == [100.0] * 4
    assert image_text.test(Towers(shift=1, misled=False), x, y) == [0.0] * 4
    head, vague, *retrieval = image_text.test(Towers(shift=0, misled=True), x, y)
    assert 45 < head < 55
    assert [vague, *retrieval] == [100.0] * 3


def test_the_heads_of_the_towers_train_only_where_they_are_asked() -> None:
    x, y = image_text.load(0)
    some = {m: v[:200] for m, v in x.items()}
    models, conflicts = {}, {}
    for method in image_text.METHODS:
        torch.manual_seed(0)
        models[method], conflicts[method] = image_text.train(method, some, y[:200], epochs=2)
    torch.manual_seed(0)
    fresh = image_text.Towers().state_dict()
    for method, model in models.items():
        for name, value in model.state_dict().items():
            assert torch.equal(value, fresh[name]) == (name.startswith("heads") and method == "joint"), (method, name)
        assert 0 <= conflicts[method] <= 100
    assert not torch.equal(models["+ unimodal"].text[2].weight, models["+ ReGrad"].text[2].weight)  # surgery acts


# --- sensors


class Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def watch_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for seglearn's file: ten people, whose number is the accelerometer's first axis."""
    rng, series = np.random.default_rng(0), []
    labels, people = (part.flatten() for part in np.meshgrid(np.arange(7), np.arange(1, 11)))
    for person in people:
        x = rng.normal(size=(220 + person, 6))
        x[:, 0] = person
        series.append(x)
    file = tmp_path / "seglearn" / "data" / "watch_dataset.npy"
    file.parent.mkdir(parents=True)
    content = {"X": np.array(series, dtype=object), "y": labels, "subject": people, "more": Touch(tmp_path / "read")}
    np.save(file, content, allow_pickle=True)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "seglearn")])
    monkeypatch.setattr(sensors, "find_spec", lambda name: spec)
    monkeypatch.setattr(sensors, "DIGEST", hashlib.sha256(file.read_bytes()).hexdigest())
    return file


def test_a_changed_file_is_refused_by_name_before_it_is_unpickled(watch_file: Path) -> None:
    was_read = watch_file.parents[2] / "read"
    digest = sensors.DIGEST
    watch_file.write_bytes(watch_file.read_bytes() + b" ")
    with pytest.raises(SystemExit, match=rf"watch_dataset\.npy: expected .* sha256 {digest}, found [0-9a-f]{{64}}"):
        sensors.load()
    assert not was_read.exists()
    watch_file.write_bytes(watch_file.read_bytes()[:-1])
    sensors.load()
    assert was_read.exists()  # so it would have shown


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install --no-deps seglearn==1\.2\.5"):
        sensors.load()


def test_windows_follow_each_other_and_keep_their_exercise_and_person(watch_file: Path) -> None:
    x, exercise, person = sensors.load()
    assert x.shape == (140, 6, 100)  # two of each series of 221 to 230
    assert torch.equal(x[:, 0], person[:, None].expand(-1, 100).float())
    assert exercise.reshape(10, 7, 2).unique(dim=0).tolist() == [[[c, c] for c in range(7)]]
    data = np.load(watch_file, allow_pickle=True).item()
    np.testing.assert_allclose(x[3].T, data["X"][1][100:200], rtol=1e-6)


def test_nobody_is_both_trained_on_and_tested(watch_file: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    people = {}

    def spy(name: str, place: int) -> None:
        function = getattr(sensors, name)

        def called(*given, **named):
            x = given[place]["accelerometer"] if isinstance(given[place], dict) else given[place]
            people.setdefault(name, set(x[:, 0, 0].tolist()))  # of the first seed; a value is a person
            return function(*given, **named)

        monkeypatch.setattr(sensors, name, called)

    spy("train", 0)
    spy("density", 1)
    spy("test", 2)
    rows = run(sensors)
    assert [len(people[name]) for name in ("train", "density", "test")] == [5, 2, 3]
    assert len(set.union(*people.values())) == 10
    failures = [f"{m} {how}" for m in ("accelerometer", "gyroscope") for how in ("stuck", "noisy")]
    assert list(rows) == ["as they are", *failures]
    for _, joint, decision, difference in rows.values():
        assert difference[0] == pytest.approx(decision[0] - joint[0], abs=0.11)


def test_statistics_are_those_of_a_loop() -> None:
    window = torch.randn(1, 3, 100, generator=torch.Generator().manual_seed(0))
    axes = window[0].double().numpy()
    expected = [axis.mean() for axis in axes]
    expected += [np.log(0.01 + np.std(axis, ddof=1)) for axis in axes]
    expected += [np.log(0.01 + np.std(np.diff(axis), ddof=1)) for axis in axes]
    assert sensors.statistics(window)[0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("how", ["stuck", "noisy"])
def test_a_failing_sensor_is_more_uncertain_and_doubted(how: str) -> None:
    torch.manual_seed(0)
    training, calibrating, testing = (torch.randn(200, 3, 100).cumsum(-1) / 10 for _ in range(3))
    density = sensors.density(training, calibrating)
    clean, failing = (sensors.statistics(x) for x in (testing, sensors.FAILURES[how](testing)))
    assert density(failing).min() > density(clean).max()
    assert (density.confidence(clean) < 0.05).float().mean() < 0.15
    assert (density.confidence(failing) < 0.05).all()


@pytest.mark.parametrize("failing", [None, "accelerometer", "gyroscope"])
def test_the_other_sensor_decides_where_one_alone_is_doubted(failing: str | None) -> None:
    doubted = {"accelerometer": [0, 0, 1, 1], "gyroscope": [0, 1, 0, 1]}
    both, accelerometer, gyroscope = F.one_hot(torch.tensor([[0] * 4, [1] * 4, [2] * 4]), 3).float()
    alone = {"accelerometer": accelerometer, "gyroscope": gyroscope}
    x = {m: torch.tensor(values)[:, None, None].expand(-1, 3, 100).float() for m, values in doubted.items()}
    # the first statistic is the level, here 1 where the sensor is to be doubted
    density = SimpleNamespace(confidence=lambda statistics: 1 - statistics[:, 0])
    truth = torch.tensor([0, 1, 2, 0])  # both, the accelerometer, the gyroscope, both
    model = lambda x: (both, alone)  # noqa: E731
    shown, joint, decision, difference = sensors.test(model, dict.fromkeys(x, density), x, truth, failing)
    assert shown == (75.0 if failing is None else 50.0)
    assert (joint, decision, difference) == (50.0, 100.0, 50.0)


# --- table and image


def test_the_spurious_column_is_the_label_nine_times_in_ten_or_by_chance() -> None:
    image, usual, broken, y = tabular_image.load(torch.Generator().manual_seed(0))
    assert image.shape == (1797, 1, 8, 8)
    assert torch.equal(usual[:, :7], broken[:, :7])
    agrees = [((table[:, 7] * 3 + 4.5).round() == y).float().mean() for table in (usual, broken)]
    assert agrees[0] == pytest.approx(0.9 + 0.1 / 10, abs=0.02)
    assert agrees[1] == pytest.approx(0.1, abs=0.02)


def test_the_foreign_model_stays_as_it_is_and_its_branches_meet() -> None:
    torch.manual_seed(0)
    model = tabular_image.Foreign()
    keys = list(model.state_dict())
    wrapped = tabular_image.MultiBranch(model, tabular_image.PARTS)
    assert list(wrapped.state_dict()) == keys
    model.eval()
    x = torch.randn(5, 1, 8, 8), torch.randn(5, 8)
    output, features = wrapped(*x)
    assert torch.equal(output, model(*x))
    for m, other in (("image", model.mlp), ("table", model.cnn)):
        model.zero_grad()
        features[m].sum().backward(retain_graph=True)
        assert all(gradient.any() for gradient in gradients(other)), f"{m} does not depend on the other"


def test_prototypes_and_surgery_each_change_what_is_trained() -> None:
    image, usual, _, y = (part[:200] for part in tabular_image.load(torch.Generator().manual_seed(0)))
    weights, conflicts = [], []
    for method in tabular_image.METHODS:
        torch.manual_seed(0)
        model, conflict = tabular_image.train(method, image, usual, y, epochs=3)
        weights.append(model.model.cnn[0].weight)
        conflicts.append(conflict)
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert np.isnan(conflicts[0])
    assert all(0 <= conflict <= 100 for conflict in conflicts[1:])


class Doubtful(nn.Module):
    """Its first axis of the table is the logit of class 1; dropout sees another doubt, the second."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        logit = table[:, 1] * (1 + 0 * self.drop(table[:, 1])) if self.training else table[:, 0]
        return torch.stack([torch.zeros_like(logit), logit], 1)


def test_errors_and_risks_are_those_of_a_loop() -> None:
    torch.manual_seed(0)
    usual, broken = torch.randn(2, 50, 2)
    y, image = (broken[:, 0] + torch.randn(50) > 0).long(), torch.zeros(50, 1)
    foreign = Doubtful().eval()
    wrapped = lambda image, table: SimpleNamespace(output=foreign(image, table))  # noqa: E731
    wrapped.model = foreign
    found = tabular_image.test(wrapped, image, usual, broken, y)

    def errors(table: Tensor) -> list[int]:
        return [int((logit > 0) != bool(label)) for logit, label in zip(table[:, 0].tolist(), y.tolist(), strict=True)]

    expected = [sum(errors(table)) / 50 for table in (usual, broken)]
    for column in (0, 1):
        surest = sorted(range(50), key=lambda i: -abs(float(broken[i, column])))[:40]  # entropy falls with |logit|
        expected.append(sum(errors(broken)[i] for i in surest) / 40)
    assert found == pytest.approx([100 * error for error in expected])
    assert found[2] < found[3]
