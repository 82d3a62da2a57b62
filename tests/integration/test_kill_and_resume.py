"""A training that was killed and goes on is one that nobody killed, bit for bit; tests/reliability/kills.py kills more.

State lives in buffers: what a module's ``state_dict`` says, saved, read with ``weights_only=True`` and loaded into a
module that began otherwise, goes on as the first one does.
"""

import os
import pkgutil
import random
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fas import record, scoring
from fas.backbones import SMALL
from fas.files import whole
from fas.samples import DOMAINS, Samples
from fas.standin import make_split
from fas.study import SENSORS
from fas.systems import SYSTEMS, Setup
from fas.training import Options, fit
from torch import Tensor, nn

import balancekit
from balancekit import adapters, branches, modulation, prototypes, uncertainty
from balancekit.modulation import scale_updates
from tests.reliability import kills
from tests.reliability.kills import same

Make = Callable[[], Any]
Use = Callable[[Any, int], Any]


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a loop that nobody killed."""
    path = tmp_path_factory.mktemp("loop") / "checkpoint.pt"
    kills.loop(path)
    return path


@pytest.mark.parametrize("when", kills.TIMES[1:3])
def test_a_killed_loop_goes_on(unharmed: Path, tmp_path: Path, when: str) -> None:
    kills.kill(kills.LOOP, tmp_path, when, random.Random(when), 1.0)
    torch.rand(7)  # a new process has another random state
    kills.loop(tmp_path / "checkpoint.pt")
    assert same(kills.LOOP.left(tmp_path), kills.LOOP.left(unharmed.parent))


def test_a_loop_goes_on_between_two_measurements(unharmed: Path, tmp_path: Path) -> None:
    """After 5 steps there are held weights, and features that no commit has seen."""
    path = tmp_path / "checkpoint.pt"
    kills.resume.go_on(kills.Streams(coupled=True), kills.everything, path, until=5)
    state = torch.load(path, weights_only=True)["model"]
    assert state["state.6._extra_state"]["0"]["age"] == 2
    assert all(state[f"state.5.{m}.moments.count"] > 0 for m in kills.WIDTHS)
    kills.loop(path)
    assert same(kills.LOOP.left(tmp_path), kills.LOOP.left(unharmed.parent))


def test_one_bit_is_seen() -> None:
    assert same({"a": [torch.zeros(2), (1, "x")]}, {"a": [torch.zeros(2), (1, "x")]})
    assert not same([torch.tensor(0.0)], [torch.tensor(-0.0)])
    assert not same([1], [1.0])
    assert same(torch.tensor(torch.nan), torch.tensor(torch.nan))


# --- checkpoints ---


@pytest.mark.parametrize("write", ["loop", "fas"])
def test_a_checkpoint_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    path, done = tmp_path / "checkpoint.pt", []
    path.write_bytes(b"the old one")
    sync, replace = os.fsync, os.replace

    def synced(file: int) -> None:
        done.append(("on the disk", os.fstat(file).st_ino, os.fstat(file).st_size))
        sync(file)

    def replaced(source: Any, target: Any) -> None:
        done.append(("in its place", os.stat(source).st_ino, os.stat(source).st_size))
        assert path.read_bytes() == b"the old one"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    if write == "loop":
        kills.resume.save(path, {"model": nn.Linear(100, 100)}, 1)
    else:
        with whole(path) as partial_path:
            torch.save(nn.Linear(100, 100).state_dict(), partial_path)
    assert [what for what, *_ in done] == ["on the disk", "in its place"]
    assert done[0][1:] == done[1][1:]


def test_a_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"the old one")
    with pytest.raises(OSError, match="no space"), whole(path) as partial_path:
        partial_path.write_bytes(b"the new")
        raise OSError("no space")
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"the old one"


def broken(content: bytes) -> Iterator[bytes]:
    """What a disk may make of it."""
    for length in (0, 1, 4, 100, len(content) // 2, len(content) - 1):
        yield content[:length]
    draw = random.Random(0)
    for length in (1, 30, 3000):
        yield from (draw.randbytes(length) for _ in range(10))
    yield bytes(len(content))
    yield b"no checkpoint at all, a letter\n" * 9


def test_a_broken_checkpoint_of_the_loop_says_its_name(unharmed: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for content in broken(unharmed.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.pt: expected a whole checkpoint; delete it to begin anew"):
            kills.resume.load(path, {})
        assert path.read_bytes() == content


@pytest.fixture(scope="module")
def faces() -> Samples:
    return make_split("S", "train", 20, seed=5)


def test_a_broken_checkpoint_of_the_example_says_its_name(unharmed: Path, faces: Samples, tmp_path: Path) -> None:
    path, setup = tmp_path / "checkpoint.pt", Setup(SMALL, dict(SENSORS), len(DOMAINS))
    (tmp_path / record.NAME).write_text(
        '{"system": "ViT", "options": {"infrared": ["grey"]}, "backbone": "small", "weights": null, "domains": 4}'
    )
    message = (
        r"resume: expected .*checkpoint\.pt to hold a whole checkpoint, found '.*'; delete it, and --resume trains"
    )
    options = Options(epochs=1, batch=10)
    for content in broken(unharmed.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            scoring.load_run(tmp_path, "last", "cpu")
    stray = tmp_path / ".17-checkpoint.pt"
    stray.write_bytes(b"half of")
    with pytest.raises(ValueError, match=message):
        fit(partial(SYSTEMS["ViT"], setup), faces, faces, options, checkpoint=path, resume=True)
    assert not stray.exists()
    path.unlink()
    fit(partial(SYSTEMS["ViT"], setup), faces, faces, options, checkpoint=path, resume=True)
    assert torch.load(path, weights_only=True)["step"] == 2


def test_a_broken_record_says_its_name(tmp_path: Path) -> None:
    path = tmp_path / record.NAME
    for content in ('{"system": "Vi', "", "\0" * 40):
        path.write_text(content)
        with pytest.raises(
            ValueError, match=r"expected .*run\.json to hold the record .*delete it, and --resume writes"
        ):
            record.check(path, {"system": "ViT"})


# --- every module ---


class Case(NamedTuple):
    """A module, and what a step does with it."""

    make: Make
    use: Use = lambda module, step: module(torch.randn(2, 9, 6))


def logits(*shape: int) -> dict[str, Tensor]:
    return {m: torch.randn(*shape) for m in ("audio", "video")}


def scores(module: Any, step: int) -> Any:
    return module(logits(4, 3), torch.randint(3, (4,)))


def accuracies(module: Any, step: int) -> Any:
    return module({m: torch.rand(()) for m in ("audio", "video")})


def bank(module: Any, step: int) -> Any:
    module.accumulate(torch.randn(4, 6), torch.randint(3, (4,)))
    if step % 2:
        module.commit()
    return module(torch.randn(2, 6))


def fitted(draw: Callable[[], tuple], module: Any, step: int) -> Any:
    """Between 2 and 3, when the state is saved, a calibration waits for its commit."""
    for name in ("accumulate commit", "accumulate", "commit calibrate", "commit", "accumulate", "commit")[step].split():
        getattr(module, name)(*(() if name == "commit" else draw()))
    return module(*draw()), module.confidence(*draw())


def features() -> tuple:
    return (torch.randn(40, 6),)


def labelled() -> tuple:
    return torch.randn(40, 6), torch.randint(3, (40,))


def pairs() -> tuple:
    return ({"audio": torch.randn(40, 3), "video": torch.randn(40, 2)},)


def three() -> tuple:
    return ({"audio": torch.randn(40, 3), "place": torch.randn(40, 2)},)


def encoders() -> nn.ModuleDict:
    return nn.ModuleDict({m: nn.Linear(6, 6) for m in ("audio", "video")})


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoders, self.norm = encoders(), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.encoders["audio"](x[:, 0]) + self.encoders["video"](x[:, 1]))


class Tapped(nn.Module):
    """Adapters that hear a confidence."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(6, 6)
        tap = adapters.Tap(self.attention, lambda x: torch.exp(-x.abs()).mean(-1))
        names = ("audio", "video")
        make = partial(adapters.GatedCrossAttention, 6, width=4, heads=2, qk_norm=True, scale="learned")
        self.cross = adapters.CrossModal(names, adapters.ring(names), make, confidence=tap)

    def forward(self, x: Tensor) -> Tensor:
        return self.cross(self.attention(x))


def dropped() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 3))


def ensemble(backend: Any) -> nn.Module:
    seed = int(torch.randint(100, ()))
    return uncertainty.DeepEnsemble.build(lambda: nn.Sequential(nn.Linear(6, 3)), 3, seed=seed, backend=backend)


gated = partial(adapters.GatedCrossAttention, 6, width=4, heads=2)
density, residual = uncertainty.FeatureDensity, uncertainty.CrossModalResidual
ratio = partial(modulation._agm.AgainstRunningMean, 2)  # a ratio of one's own that has a state
CASES: dict[type[nn.Module], list[Case]] = {
    adapters.AMA: [Case(lambda: adapters.AMA(("a", "b"), 6, width=4, grid=2))],
    adapters.CDCAdapter: [Case(lambda: adapters.CDCAdapter(6, grid=(2, 4)))],
    adapters.CentralDifferenceConv2d: [
        Case(lambda: adapters.CentralDifferenceConv2d(2, 3), lambda m, step: m(torch.randn(2, 2, 5, 5)))
    ],
    adapters.ConvAdapter: [Case(lambda: adapters.ConvAdapter(6, grid=(2, 4)))],
    adapters.CrossModal: [Case(Tapped)],
    adapters.GatedCrossAttention: [
        Case(partial(gated, conv="cdc", grid=(2, 4)), lambda m, step: m(torch.randn(2, 9, 6), torch.randn(2, 9, 6)))
    ],
    adapters.Parallel: [Case(lambda: adapters.Parallel(nn.Linear(6, 6), nn.Linear(6, 6)))],
    adapters.Tap: [
        Case(
            lambda: adapters.Tap(nn.BatchNorm1d(9), lambda x: x.square().mean(-1)),
            lambda m, step: (m(torch.randn(2, 9, 6)), m.value),
        )
    ],
    branches.MultiBranch: [
        Case(lambda: branches.MultiBranch(Two(), {"audio": "encoders.audio", "video": "encoders.video"}))
    ],
    modulation.AGM: [Case(lambda: modulation.AGM(2), scores)],
    modulation.ARL: [Case(modulation.ARL, scores)],
    modulation.CGGM: [Case(lambda: modulation.CGGM(["audio", "video"]), accuracies)],
    modulation.EpistemicModulation: [Case(modulation.EpistemicModulation, lambda m, step: m(logits(4)))],
    modulation.MLB: [Case(modulation.MLB, scores)],
    modulation.MSLR: [Case(lambda: modulation.MSLR({"audio": 0.9, "video": 1.1}, window=4), accuracies)],
    modulation.Modulation: [Case(lambda: modulation.Modulation(modulation.correct_score, ratio(), torch.exp), scores)],
    modulation.OGM: [Case(lambda: modulation.OGM(alpha=0.8), scores)],
    modulation.OPM: [Case(modulation.OPM, scores)],
    modulation.SMP: [Case(modulation.SMP, scores)],
    prototypes.PrototypeBank: [Case(lambda: prototypes.PrototypeBank(3, 6, decay=0.9), bank)],
    uncertainty.CrossModalResidual: [
        Case(lambda: residual({"audio": 3, "video": 2}, covariance="full", decay=0.9), partial(fitted, pairs)),
        Case(lambda: residual({"audio": 3}, context={"place": 2}), partial(fitted, three)),
    ],
    uncertainty.DeepEnsemble: [Case(partial(ensemble, "loop")), Case(partial(ensemble, "vmap"))],
    uncertainty.FeatureDensity: [
        Case(lambda: density(6, decay=0.9), partial(fitted, features)),
        Case(lambda: density(6, covariance="full", classes=3), partial(fitted, labelled)),
        Case(lambda: density(6, covariance="low-rank", rank=2), partial(fitted, features)),
    ],
    uncertainty.MCDropout: [
        Case(lambda: uncertainty.MCDropout(dropped(), samples=3)),
        Case(lambda: uncertainty.MCDropout(dropped(), samples=3, encoder=nn.Sequential(nn.BatchNorm1d(9)))),
    ],
    uncertainty.ProbabilisticQuery: [
        Case(lambda: uncertainty.ProbabilisticQuery(6), lambda m, step: m(torch.randn(2, 9, 6)).draw())
    ],
}
BASES = {modulation.Modulator}


def test_no_module_is_left_out() -> None:
    rooms = [m.name for m in pkgutil.iter_modules(balancekit.__path__) if m.name[0] != "_"]
    found = [balancekit, *(import_module(f"balancekit.{room}") for room in rooms)]
    public = [getattr(room, name) for room in found for name in room.__all__]
    modules = {each for each in public if isinstance(each, type) and issubclass(each, nn.Module)}
    assert modules == set(CASES) | BASES


def tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, dict | tuple | list):
        for each in found.values() if isinstance(found, dict) else found:
            yield from tensors(each)


def step_of(case: Case, module: nn.Module, step: int) -> Any:
    """Use it, and let its parameters learn something."""
    torch.manual_seed(step)
    found = case.use(module, step)
    trained = [p for p in module.parameters() if p.requires_grad]
    ends = [t for t in tensors(found) if t.requires_grad]
    if trained and ends:
        loss = sum((end.square().mean() + end.sum() for end in ends), torch.zeros(()))
        for p, g in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True):
            if g is not None:
                p.detach().sub_(0.1 * g)
    return found


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{kind.__name__}-{i}") for kind, cases in CASES.items() for i, c in enumerate(cases)]
)
def test_a_module_goes_on_from_its_state(case: Case, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = case.make(), case.make()  # of other initial values, where there are any
    for step in range(3):
        step_of(case, first, step)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(3, 6):
        assert same(step_of(case, first, step), step_of(case, second, step))
    assert same(first.state_dict(), second.state_dict())


# --- what is no module ---


def trained(steps: int, killed_after: int | None = None) -> list[float]:
    """A learning rate that is set before each step, and scaled in it; returns the parameter step by step."""
    w, found = nn.Parameter(torch.ones(())), []
    make = partial(torch.optim.SGD, lr=1.0, momentum=0.9)
    optimizer = make([{"name": "audio", "params": [w]}])
    for step in range(steps):
        if step == killed_after:
            state = {"w": w.detach(), "optimizer": optimizer.state_dict()}
            w = nn.Parameter(state["w"].clone())
            optimizer = make([{"name": "audio", "params": [w]}])
            optimizer.load_state_dict(state["optimizer"])
        optimizer.zero_grad()
        w.square().backward()
        scale_updates(optimizer, {"audio": 0.5})
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.step()
        found.append(w.item())
    return found


def test_the_first_update_that_is_scaled_is_as_any_other() -> None:
    """By hand: w ← w − 0.5 η (2w + 0.9 v)."""
    w, v, expected = 1.0, 0.0, []
    for step in range(3):
        v = 0.9 * v + 2 * w
        w -= 0.5 * 0.1 / (1 + step) * v
        expected.append(w)
    assert trained(3) == pytest.approx(expected)


def test_scaled_updates_go_on() -> None:
    assert trained(4, killed_after=2) == trained(4)


def test_a_scale_that_waits_is_not_in_the_state_of_the_optimizer() -> None:
    """A gradient scaler often skips the very first step."""
    w = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([{"name": "audio", "params": [w]}], lr=1.0)
    scaler = torch.amp.GradScaler("cpu")
    scale_updates(optimizer, {"audio": 0.5})
    scaler.scale(w * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert w.item() == 1.0
    assert optimizer.state_dict()["param_groups"][0]["lr"] == 1.0
