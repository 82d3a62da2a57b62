"""Where else a model goes: workers of a DataLoader, several threads, copies, files, another process."""

import copy
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from balancekit import DeepEnsemble, MCDropout, dropout_confidence, missing, mutual_information, watch
from balancekit.diagnostics import History
from tests.models import Toy, batches
from tests.reliability.soak import NAMES, PRESENT, Training, X, census, data


def saved(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), saved], ids=["deepcopy", "pickle", "torch.save"]
)


def bits(training: Training) -> dict[str, bytes]:
    """All that a training has learnt and gathered."""
    modules = {"model": training.model, "density": training.density, **training.banks}
    states = {part: module.state_dict().items() for part, module in modules.items()}
    return {f"{part}.{key}": value.numpy().tobytes() for part, state in states.items() for key, value in state}


# ------------------------------------------------------------------------------------ workers of a DataLoader


class Measured(Dataset):
    """Samples that come with what a bank, a density and Monte-Carlo dropout say of them."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.training.generator = None  # torch cannot send one to a spawned process

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Tensor:
        training, generator = self.training, torch.Generator().manual_seed(i)
        x, _, present = data(generator)
        with torch.no_grad(), missing(training.model, present):
            samples = training.sampler(x, generator=generator).softmax(-1)
            with training.branches.capture() as features:
                training.model.eval()(x)
            doubt = mutual_information(samples)
        distances = [training.banks[name](feature) for name, feature in features.items()]
        return torch.cat([doubt, training.density.confidence(features["rgb"]), *distances[0]])


class Trained(Measured):
    """Samples that a copy of the training has been trained on."""

    def __getitem__(self, i: int) -> Tensor:
        torch.manual_seed(i)
        self.training.generator = torch.Generator().manual_seed(i)
        self.training.run(2)
        return torch.cat([super().__getitem__(i), self.training.model.head.weight.detach().flatten()])


def collated(items: list[Tensor]) -> Tensor:
    """A batch with a measure of its own."""
    batch = torch.stack(items)
    return torch.cat([batch, dropout_confidence(batch)[:, None]], -1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # from Python 3.12 on, of a fork
@pytest.mark.parametrize(("context", "kind"), [("fork", Measured), ("spawn", Trained)])
def test_a_worker_finds_what_its_parent_finds(context: str, kind: type[Measured]) -> None:
    training = Training()
    training.run(12)  # with one evaluation
    dataset, twin = kind(training), kind(copy.deepcopy(training))
    expected = collated([twin[i] for i in range(4)])
    options = {"num_workers": 1, "multiprocessing_context": context, "timeout": 100}
    (found,) = DataLoader(dataset, batch_size=4, collate_fn=collated, **options)
    assert torch.equal(found, expected)
    assert expected.isfinite().all()


# ------------------------------------------------------------------------------------ threads


@contextmanager
def often() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """What each returns, in a thread of its own."""
    found: dict[int, Any] = {}

    def keep(i: int) -> None:
        found[i] = functions[i]()

    threads = [threading.Thread(target=keep, args=(i,), daemon=True) for i in range(len(functions))]
    with often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=100)
    return [found[i] for i in range(len(functions))]


def quiet(seed: int) -> Training:
    """Without dropout, which draws from the stream that all threads share."""
    training = Training(seed)
    for module in training.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return training


def numbers(history: History) -> dict[str, bytes]:
    return {name: series.tobytes() for name, series in history.to_numpy().items()}


def watched(training: Training, beside: Callable[[], object] = lambda: None) -> tuple[dict[str, bytes], ...]:
    """The bits after some steps, and the history."""
    with watch(training.ogm, training.balancer, optimizer=training.optimizer, every=2) as history:
        for _ in range(8):
            beside()
            training.step()
    return bits(training), numbers(history)


def test_two_trainings_in_two_threads_are_those_of_each_alone() -> None:
    alone = [watched(quiet(seed)) for seed in range(2)]
    meet = threading.Barrier(2, timeout=100).wait
    first, second = quiet(0), quiet(1)
    together = at_once(lambda: watched(first, meet), lambda: watched(second, meet))
    assert together == alone


def meets(both: threading.Barrier | None) -> None:
    """Wait a while for the other thread, which may have to wait for this one to be done."""
    if both is not None:
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.2)


def sampled(seed: int, both: threading.Barrier | None = None) -> Tensor:
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.5))
    model[0].register_forward_hook(lambda *_: meets(both))
    return MCDropout(model, samples=3)(torch.ones(2, 8), generator=torch.Generator().manual_seed(seed))


def built(seed: int, both: threading.Barrier | None = None) -> Tensor:
    def member() -> nn.Module:
        meets(both)
        return nn.Linear(3, 2)

    return torch.stack([member.weight.detach() for member in DeepEnsemble.build(member, 3, seed=seed).members])


@pytest.mark.parametrize("draw", [sampled, built])
def test_seeded_draws_in_two_threads_are_those_of_each_alone(draw: Callable[..., Tensor]) -> None:
    alone, both, before = [draw(seed) for seed in range(2)], threading.Barrier(2), torch.get_rng_state()
    together = at_once(lambda: draw(0, both), lambda: draw(1, both))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, together, alone))


# ------------------------------------------------------------------------------------ copies


def goes_on(training: Training) -> dict[str, bytes]:
    torch.manual_seed(3)
    training.run(6)
    return bits(training)


@COPIES
def test_a_copy_of_everything_trains_on_alike_and_by_itself(copied: Callable[[Any], Any]) -> None:
    training = Training()
    training.run(5)  # an evaluation is still to come
    before = bits(training)
    twin = copied(training)
    found = goes_on(twin)
    assert bits(training) == before
    assert found == goes_on(training)
    assert found != before


@COPIES
def test_a_copy_made_within_a_capture_has_none_open(copied: Callable[[Any], Any]) -> None:
    training = Training()
    with training.branches.capture() as features:
        training.model(X)
        twin = copied(training)
        with twin.branches.capture() as others:
            twin.model(X)
        with pytest.raises(RuntimeError, match="graph leaves"):
            copy.deepcopy(features)
    assert set(features) == set(others) == set(NAMES)
    assert goes_on(twin) == goes_on(training)


@COPIES
def test_a_copy_made_within_missing_misses_nobody(copied: Callable[[Any], Any]) -> None:
    training = Training()
    training.run(2)
    model = training.model.eval()
    expected = model(X)
    with missing(model, PRESENT):
        twin = copied(model)
        told = model(X)
    assert not torch.equal(told, expected)
    assert torch.equal(twin(X), expected)


@COPIES
def test_a_copy_made_within_watch_is_not_watched(copied: Callable[[Any], Any]) -> None:
    training = Training()
    with watch(training.ogm, training.balancer, optimizer=training.optimizer, every=1) as history:
        training.step()
        twin, snapshot = copied(training), copied(history)
    seen = numbers(history)
    twin.run(2)
    first = census(*twin.parts())
    twin.run(4)
    assert census(*twin.parts()).tensors <= first.tensors  # garbage of other tests may go
    assert numbers(history) == numbers(snapshot) == seen
    assert len(pickle.dumps(snapshot)) < 20_000  # numbers, and not what was watched


def test_a_shallow_copy_of_branches_takes_no_hooks_with_it() -> None:
    model = Toy(2, coupled=False)
    branches = model.branches()
    shallow = copy.copy(branches)
    ((x, y),) = batches(1, 2)
    for _ in range(2):
        with branches.capture() as features:
            model(x, y)
        assert set(features) == {"m0", "m1"}
        shallow = None
    del branches
    assert shallow is None and not any(len(module._forward_hooks) for module in model.modules())
