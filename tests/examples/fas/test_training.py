"""Training: resumable at any step, whatever fetches its batches, the best epoch chosen on development data."""

import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from fas.backbones import SMALL
from fas.samples import DOMAINS, Samples, concatenate, load
from fas.standin import make_split
from fas.study import SENSORS
from fas.systems import SYSTEMS, Setup, System
from fas.training import Fitted, Options, fit, score

SETUP = Setup(SMALL, dict(SENSORS), len(DOMAINS))
OPTIONS = Options(epochs=3, batch=16)  # three steps an epoch
ROOT = Path(__file__).parents[3]


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def data() -> tuple[Samples, Samples]:
    train, dev = (concatenate([make_split(d, split, 24, seed=5) for d in "SC"]) for split in ("train", "dev"))
    return train, dev


def fitted(name: str, data: tuple[Samples, Samples], **arguments) -> Fitted:
    return fit(partial(SYSTEMS[name], SETUP), *data, **{"options": OPTIONS, **arguments})


@pytest.fixture(scope="module")
def whole(data) -> Fitted:
    """Never interrupted; its adapters have dropout, so the global random stream counts too."""
    run = fitted("MMDG", data)
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in run.system.modules())
    return run


def assert_same(one: Fitted, other: Fitted) -> None:
    for found, expected in ((one.system.state_dict(), other.system.state_dict()), (one.best, other.best)):
        assert found.keys() == expected.keys()
        for key, value in found.items():
            assert torch.equal(value, expected[key]), key
    assert one.history == other.history


def test_a_training_killed_five_times_ends_as_one_that_was_not(data, whole: Fitted, tmp_path: Path) -> None:
    draw = random.Random(0)
    reached = []

    def progress(epochs: float) -> None:
        reached.append(round(epochs * 3))
        if len(reached) == stop:
            raise Killed

    for _ in range(5):
        stop = len(reached) + draw.randint(2, 4)
        torch.rand(7)  # a new process has another random state
        with pytest.raises(Killed):
            fitted("MMDG", data, checkpoint=tmp_path / "state.pt", every=2, resume=True, progress=progress)
    assert sorted(set(reached)) != reached  # some steps were done twice
    resumed = fitted("MMDG", data, checkpoint=tmp_path / "state.pt", every=2, resume=True)
    assert_same(resumed, whole)


CHILD = """
import sys, time
from functools import partial
from pathlib import Path
import torch
torch.set_num_threads(1)
from fas.samples import load
from tests.examples.fas.test_training import fitted
where = Path(sys.argv[1])
def progress(epochs):
    print("step", flush=True)
    if epochs * 3 > 3.5:
        time.sleep(60)
fitted("MMDG", (load(where / "train.npz"), load(where / "dev.npz")), checkpoint=where / "state.pt", every=1,
       progress=progress)
"""


def test_a_process_that_was_killed_goes_on(data, whole: Fitted, tmp_path: Path) -> None:
    for name, samples in zip(("train", "dev"), data, strict=True):
        samples.save(tmp_path / f"{name}.npz")
        assert torch.equal(load(tmp_path / f"{name}.npz").rgb, samples.rgb)
    path = [str(ROOT), str(ROOT / "examples")]
    code = f"import sys; sys.path[:0] = {path}\n{CHILD}"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        for _ in range(4):
            assert child.stdout.readline() == "step\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    steps = []
    resumed = fitted("MMDG", data, checkpoint=tmp_path / "state.pt", resume=True, progress=steps.append)
    assert len(steps) == 1 + 9 - 4  # where it stood, and the steps that were left
    assert_same(resumed, whole)


def test_a_finished_training_is_read_back(data, tmp_path: Path) -> None:
    whole = fitted("ViT", data, checkpoint=tmp_path / "state.pt")
    steps = []
    again = fitted("ViT", data, checkpoint=tmp_path / "state.pt", resume=True, progress=steps.append)
    assert steps == [3.0]
    assert_same(again, whole)


@pytest.mark.parametrize(
    ("change", "expected", "found"),
    [
        ({"options": OPTIONS._replace(lr=0.5)}, "lr=0.5", "lr=0.003"),
        ({"options": OPTIONS._replace(epochs=5)}, "epochs=5", "epochs=3"),
        ({"made_from": "other lists"}, "other lists", "these lists"),
    ],
)
def test_a_training_goes_on_with_its_own_options_only(data, tmp_path: Path, change, expected, found) -> None:
    place = tmp_path / "state.pt"

    def stop(epochs: float) -> None:
        raise Killed

    with pytest.raises(Killed):
        fitted("ViT", data, checkpoint=place, every=1, made_from="these lists", progress=stop)
    before = place.read_bytes()
    with pytest.raises(ValueError, match=rf"resume: expected .*state\.pt to hold .*{expected}.*found .*{found}"):
        fitted("ViT", data, checkpoint=place, resume=True, **{"made_from": "these lists", **change})
    assert place.read_bytes() == before


def test_the_number_of_loader_workers_changes_nothing(data) -> None:
    options = OPTIONS._replace(epochs=1)
    alone, helped = (fitted("modality dropout", data, options=options._replace(workers=n)) for n in (0, 2))
    assert_same(alone, helped)


def test_the_best_epoch_is_that_of_the_highest_development_auc(data, monkeypatch) -> None:
    values = iter([0.6, 0.9, 0.7])
    monkeypatch.setattr("fas.training.auc", lambda scores, live: next(values))
    states: list[dict] = []
    systems: list[System] = []

    def make() -> System:
        systems.append(SYSTEMS["depth alone"](SETUP))
        return systems[0]

    def progress(epochs: float) -> None:
        if epochs == int(epochs):
            states.append({key: value.clone() for key, value in systems[0].state_dict().items()})

    run = fit(make, *data, OPTIONS, progress=progress)
    assert run.history.dev_auc == [0.6, 0.9, 0.7]
    assert all(torch.equal(value, states[1][key]) for key, value in run.best.items())
    assert any(not torch.equal(value, states[2][key]) for key, value in run.best.items())
    assert all(torch.equal(value, states[2][key]) for key, value in run.system.state_dict().items())


def test_the_score_is_the_log_odds_of_a_live_face(data) -> None:
    torch.manual_seed(0)
    system = SYSTEMS["MMDG"](SETUP)
    scores, confidence = score(system, data[1], OPTIONS, ["depth"])
    assert scores.shape == (48,) and {m: tuple(c.shape) for m, c in confidence.items()} == dict.fromkeys(
        SENSORS, (48, 64)
    )
    black = data[1]._replace(depth=torch.zeros_like(data[1].depth))
    assert torch.equal(scores, score(system, black, OPTIONS)[0])
