"""A long training with every part on, then each wrapper made and dropped many times: nothing is left behind.

Run as a script, on Linux: ``python tests/reliability/soak.py``. Exit status 1 if a bound is broken.
"""

import argparse
import copy
import ctypes
import gc
import math
import os
import statistics
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import (
    AMA,
    OGM,
    Branches,
    CrossModal,
    DeepEnsemble,
    FeatureDensity,
    GatedCrossAttention,
    MCDropout,
    MultiBranch,
    Parallel,
    PrototypeBank,
    Rebalancer,
    ReGrad,
    Tap,
    dropout_confidence,
    missing,
    modulate,
    mutual_information,
    prototypical_cross_entropy,
    train_only,
    watch,
)
from balancekit.adapters import adapter_state, load_adapter_state, remove
from balancekit.diagnostics import History
from balancekit.modulation import scale_updates, slice_logits
from balancekit.schedules import purity, relearn_strength, soft_reset

NAMES = ("rgb", "depth", "ir")
INPUT, WIDTH, CLASSES, BATCH, GRID = 5, 8, 3, 6, 2
MIB = 2**20

# ------------------------------------------------------------------------------------ the model and its training


class Mark(torch.autograd.Function):
    """The identity; its node in the graph can be watched."""

    alive: ClassVar["weakref.WeakSet[Any]"] = weakref.WeakSet()

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Mark.alive.add(ctx)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Model(nn.Module):
    """Three sensors through one trunk: stems, a stretch as one batch, one as one sequence, tops, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleDict({name: nn.Linear(INPUT, WIDTH) for name in NAMES})
        self.attention = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1))
        self.mlp = nn.Linear(WIDTH, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.prefix = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.tops = nn.ModuleDict({name: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1)) for name in NAMES})
        self.head = nn.Linear(len(NAMES) * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of x "m b n i"."""
        m, b, n, _ = x.shape
        batch = torch.cat([Mark.apply(self.stems[name](x[i])) for i, name in enumerate(NAMES)])
        batch = batch + self.attention(batch)
        batch = batch + self.mlp(batch)
        patches = batch.unflatten(0, (m, b)).transpose(0, 1).flatten(1, 2)
        line = torch.cat([self.prefix.expand(b, -1, -1), patches], 1)
        line = line + self.mix(line)
        pooled = line[:, 1:].unflatten(1, (m, n)).mean(2).unbind(1)
        return self.head(torch.cat([self.tops[name](z) for name, z in zip(NAMES, pooled, strict=True)], -1))


def adapt(model: Model) -> CrossModal:
    """Put the adapters in place."""
    tap = Tap(model.attention, dropout_confidence)
    adapter = partial(GatedCrossAttention, WIDTH, width=4, heads=2, gate="output")
    cross = CrossModal(NAMES, [("depth", "rgb"), ("rgb", "ir")], adapter, confidence=tap)
    model.mlp = Parallel(model.mlp, cross)
    model.mix = Parallel(model.mix, AMA(NAMES, WIDTH, width=4, grid=GRID))
    return cross


def groups(model: Model, cross: CrossModal | None = None) -> dict[str, Any]:
    """What each branch is made of; the first is what is captured."""
    return {name: [model.tops[name], model.stems[name], *([] if cross is None else cross.into(name))] for name in NAMES}


def data(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A batch "m b n i", labels that each modality shows as loudly as it can, and who is present."""
    y = torch.randint(CLASSES, (BATCH,), generator=generator)
    x = torch.randn(len(NAMES), BATCH, GRID**2, INPUT, generator=generator)
    signal = F.one_hot(y, INPUT) * torch.tensor([2.0, 1.0, 0.5]).view(-1, 1, 1)
    present = torch.rand(len(NAMES), BATCH, generator=generator) > 0.3
    return x + signal[:, :, None], y, present


X, Y, PRESENT = data(torch.Generator().manual_seed(0))
BARE = Model()
Times = tuple[float, float]  # of a step: the processor's, in milliseconds, and over that of a bare one


class Training:
    """Every part of the library at once, in one loop."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.model = Model()
        self.branches = Branches(self.model, groups(self.model, adapt(self.model)))
        self.balancer = Rebalancer(self.branches, ReGrad(), weight=0.3)
        self.banks = {name: PrototypeBank(CLASSES, WIDTH, decay=0.9) for name in NAMES}
        self.density = FeatureDensity(WIDTH, decay=0.5)
        self.sampler = MCDropout(self.model, samples=4)
        self.ogm = OGM(alpha=0.5)
        self.optimizer = torch.optim.SGD(self.branches.param_groups(lr=0.01), momentum=0.9, weight_decay=1e-3)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(self.optimizer, 100)
        self.initial = copy.deepcopy(self.model.stems["rgb"].state_dict())
        self.steps = 0

    def run(self, steps: int) -> list[Times]:
        """So many steps, as one epoch with a history of its own."""
        with watch(self.ogm, self.balancer, optimizer=self.optimizer):
            return [self._timed_step() for _ in range(steps)]

    def _timed_step(self) -> Times:
        start = time.process_time()
        self.step()
        middle = time.process_time()
        BARE(X).sum().backward()  # a ruler for a machine that is not always equally fast
        end = time.process_time()
        return 1e3 * (middle - start), (middle - start) / (end - middle)

    def step(self) -> None:
        """One step of the training, and what is done once in a while."""
        x, y, present = data(self.generator)
        with missing(self.model, present), self.branches.capture() as features:
            logits = self.model(x)
        losses = {}
        for name, feature in features.items():
            bank = self.banks[name]
            bank.update(feature.detach(), y)
            losses[name] = prototypical_cross_entropy(feature, y, bank.prototypes, seen=bank.seen)
        confidence = {name: dropout_confidence(feature) for name, feature in features.items()}
        loss = self.balancer(F.cross_entropy(logits, y), losses, confidence=confidence)
        coefficients = self.ogm(slice_logits(self.model.head, features), y)
        modulate(features, coefficients, loss)
        self.optimizer.zero_grad()
        loss.backward()
        scale_updates(self.optimizer, coefficients)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)  # prototypes that follow their features let both grow
        self.optimizer.step()
        self.scheduler.step()
        self.density.accumulate(features["rgb"])
        self.steps += 1
        if self.steps % 50 == 10:
            self._evaluate(x, y, features["rgb"])

    def _evaluate(self, x: Tensor, y: Tensor, feature: Tensor) -> None:
        self.density.commit()
        self.density.calibrate(feature)
        self.density.commit()
        trust = self.density.confidence(feature)
        with torch.no_grad():
            samples = self.sampler(x, generator=self.generator).softmax(-1)
        doubt = mutual_information(samples)
        assert trust.isfinite().all() and doubt.isfinite().all()
        strength = relearn_strength(purity(samples.mean(0).argmax(-1), y), 0.5)
        soft_reset(self.model.stems["rgb"], self.initial, 0.1 * strength, optimizer=self.optimizer)

    def parts(self) -> list[Any]:
        """Whatever may hold a hook."""
        return [self.model, self.sampler, self.ogm, self.density, *self.banks.values(), self.optimizer, self.balancer]


# ------------------------------------------------------------------------------------ what is counted


def hooks(*parts: Any) -> list[Any]:
    """Every hook of modules, of their tensors, of optimizers, and of whatever else has some."""
    holders: dict[int, Any] = {}
    for part in parts:
        inside = [*part.modules(), *part.parameters(), *part.buffers()] if isinstance(part, nn.Module) else [part]
        holders |= {id(holder): holder for holder in inside}
    tables = [table for holder in holders.values() for table in _tables(holder)]
    tables += [table for name, table in vars(nn.modules.module).items() if "_hooks" in name]
    return [hook for table in tables if isinstance(table, dict) for hook in table.values()]


def _tables(holder: Any) -> Iterable[Any]:
    if isinstance(holder, Tensor):
        return holder._backward_hooks, holder._post_accumulate_grad_hooks
    return [table for name, table in vars(holder).items() if "_hooks" in name]


class Census(NamedTuple):
    """What is alive."""

    hooks: int
    graphs: int  # nodes that are marked, and tensors that have a node
    tensors: int
    objects: int  # that the collector of cycles knows
    finalizers: int


def census(*parts: Any) -> Census:
    """Count, after a collection."""
    gc.collect()
    objects = gc.get_objects()
    tensors = [each for each in objects if issubclass(type(each), Tensor)]
    nodes = len(Mark.alive) + sum(each.grad_fn is not None for each in tensors)
    return Census(len(hooks(*parts)), nodes, len(tensors), len(objects), len(weakref.finalize._registry))


class Portrait(NamedTuple):
    """All of a model that a wrapper could change and leave so."""

    bits: dict[str, bytes]
    classes: dict[str, type]
    attributes: dict[str, list[str]]
    hooks: list[Any]
    modes: dict[str, bool]
    trained: dict[str, bool]


def portrait(model: nn.Module) -> Portrait:
    """The model as it is."""
    modules = dict(model.named_modules())
    return Portrait(
        {key: value.numpy().tobytes() for key, value in model.state_dict().items()},
        {name: type(module) for name, module in modules.items()},
        {name: sorted(vars(module)) for name, module in modules.items()},
        hooks(model),
        {name: module.training for name, module in modules.items()},
        {name: parameter.requires_grad for name, parameter in model.named_parameters()},
    )


# ------------------------------------------------------------------------------------ the wrappers


def learn(model: nn.Module, loss: Tensor) -> None:
    """A backward, after which no gradient is left."""
    loss.backward()
    model.zero_grad()


def of_branches(model: Model) -> None:
    branches = Branches(model, groups(model))
    with branches.capture() as features:
        learn(model, model(X).sum())
    assert set(features) == set(NAMES)


def of_multi_branch(model: Model) -> None:
    learn(model, MultiBranch(model, groups(model))(X).output.sum())


def of_a_capture_that_fails(model: Model) -> None:
    branches = Branches(model, groups(model))
    try:
        with branches.capture():
            model(X[..., 1:])
    except RuntimeError as error:
        assert "shapes" in str(error)


def of_parallel(model: Model) -> None:
    model.mlp = Parallel(model.mlp, nn.Linear(WIDTH, WIDTH), input_of=model.attention)
    learn(model, model(X).sum())
    remove(model)


def of_tap(model: Model) -> None:
    beside = Tap(model.attention, dropout_confidence)
    model.mlp = Tap(model.mlp, dropout_confidence)
    learn(model, model(X).sum())
    assert beside.value.shape == model.mlp.value.shape
    beside.remove()
    remove(model)


def of_all_adapters(model: Model) -> None:
    cross = adapt(model)
    branches = Branches(model, groups(model, cross))
    with missing(model, PRESENT), branches.capture():
        learn(model, model(X).sum())
    remove(model)


def of_missing(model: Model) -> None:
    with missing(model, PRESENT):
        learn(model, model(X).sum())


def of_adapter_state(model: Model) -> None:
    cross = adapt(model)
    train_only(model, cross)
    load_adapter_state(model, adapter_state(model, cross), cross)
    remove(model)
    train_only(model, model)


def of_mc_dropout(model: Model) -> None:
    with torch.no_grad():
        MCDropout(model, samples=2)(X, generator=torch.Generator().manual_seed(0))


def of_mc_dropout_left_halfway(model: Model) -> None:
    with torch.no_grad():
        next(MCDropout(model, samples=3).stream(X))


def of_deep_ensemble(model: Model) -> None:
    learn(model, DeepEnsemble([model, Model()])(X).sum())


def of_rebalancer(model: Model) -> None:
    balancer = Rebalancer(Branches(model, groups(model)), ReGrad())
    seen: list[Any] = []
    handle = balancer.register_step_hook(seen.append)
    with balancer.branches.capture() as features:
        logits = model(X)
    losses = {name: feature.square().sum() for name, feature in features.items()}
    learn(model, balancer(F.cross_entropy(logits, Y), losses))
    handle.remove()
    assert len(seen) == 1 and not balancer._hooks


def of_modulate(model: Model) -> None:
    with Branches(model, groups(model)).capture() as features:
        loss = model(X).sum()
    modulate(features, dict.fromkeys(NAMES, 0.5), loss)
    learn(model, loss)


def of_modulate_a_parameter(model: Model) -> None:
    loss = model(X).sum()
    modulate({"prefix": model.prefix}, {"prefix": 0.5}, loss)
    learn(model, loss)


def of_watch(model: Model) -> None:
    branches = Branches(model, groups(model))
    optimizer = torch.optim.SGD(branches.param_groups(), lr=0.0)
    balancer, ogm = Rebalancer(branches, ReGrad()), OGM(alpha=0.5)
    with watch(balancer, ogm, optimizer=optimizer, every=1, patience=2):
        with branches.capture() as features:
            logits = model(X)
        losses = {name: feature.square().sum() for name, feature in features.items()}
        loss = balancer(F.cross_entropy(logits, Y), losses)
        scale_updates(optimizer, ogm(slice_logits(model.head, features), Y))
        loss.backward()
        optimizer.step()
    model.zero_grad()


WRAPPERS: dict[str, Callable[[Model], None]] = {
    "Branches and capture": of_branches,
    "capture that fails": of_a_capture_that_fails,
    "MultiBranch": of_multi_branch,
    "Parallel, remove": of_parallel,
    "Tap, remove": of_tap,
    "CrossModal, AMA, remove": of_all_adapters,
    "missing": of_missing,
    "train_only, adapter_state": of_adapter_state,
    "MCDropout": of_mc_dropout,
    "MCDropout.stream left halfway": of_mc_dropout_left_halfway,
    "DeepEnsemble": of_deep_ensemble,
    "Rebalancer, step hook": of_rebalancer,
    "modulate": of_modulate,
    "modulate a parameter": of_modulate_a_parameter,
    "watch, scale_updates": of_watch,
}


def subject(wrapper: Callable[[Model], None]) -> Model:
    """The model that a wrapper is put around."""
    torch.manual_seed(0)
    model = Model()
    if wrapper is of_missing:
        adapt(model)  # who could be told
    return model


# ------------------------------------------------------------------------------------ measurements


def resident() -> float:
    """Memory of this process in MiB, once what is free has gone back; the least of three readings."""
    readings = []
    for _ in range(3):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/statm") as file:
            readings.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB)
    return min(readings)


class Readings:
    """Memory and counts, read every so often."""

    def __init__(self) -> None:
        self.memory: list[float] = []
        self.counts: list[Census] = []

    def take(self, *parts: Any) -> None:
        self.memory.append(resident())
        self.counts.append(census(*parts))

    def lines(self, warm: int) -> Iterator["Line"]:
        """How each has grown since the reading `warm`: the last against the first, and for memory the slope."""
        memory = self.memory[warm:]
        pairs = combinations(enumerate(memory), 2)
        slope = statistics.median((w - v) / (b - a) for (a, v), (b, w) in pairs)  # Theil and Sen
        yield Line("memory, MiB", f"{memory[0]:.2f}", f"{memory[-1]:.2f}", slope * (len(memory) - 1), 1.0)
        own = len(memory) - 1  # every reading is an object
        for name, first, last in zip(Census._fields, self.counts[warm], self.counts[-1], strict=True):
            bound = 20 if name == "objects" else 0  # weak references and their like come and go
            yield Line(name, str(first), str(last), last - first - (own if bound else 0), bound)


class Line(NamedTuple):
    """A line of a table."""

    what: str
    first: str
    last: str
    change: float
    bound: float

    @property
    def broken(self) -> bool:
        return self.change > self.bound

    def __str__(self) -> str:
        verdict = "broken" if self.broken else ""
        return (
            f"{self.what:20} {self.first:>20} {self.last:>20} {self.change:>8.3g} {self.bound:>6g} {verdict}".rstrip()
        )


def soak(steps: int, readings: int = 20) -> list[Line]:
    """Train, and compare the last part with the first, of which a fifth is warm-up for all but the time."""
    training, read = Training(), Readings()
    times = np.full((readings, steps // readings, 2), np.nan)  # made and filled before memory is read
    for reading in range(readings):
        times[reading] = training.run(steps // readings)
        read.take(*training.parts())
    lines = list(read.lines(warm=readings // 5))
    tenth = readings // 10
    for column, what, bound in ((0, "step, ms", math.inf), (1, "step, bare steps", 1.2)):
        first, last = (np.quantile(part[..., column], (0.25, 0.5, 0.75)) for part in (times[:tenth], times[-tenth:]))
        shown = ["{1:.2f} ({0:.2f}-{2:.2f})".format(*quartiles) for quartiles in (first, last)]
        lines.append(Line(what, *shown, last[1] / first[1], bound))
    return lines


def wear(wrapper: Callable[[Model], None], times: int, readings: int = 10) -> tuple[list[Line], list[str]]:
    """Make and drop a wrapper so many times; what has grown, and what of the model is no longer as it was."""
    model, read = subject(wrapper), Readings()
    before = portrait(model)
    for _ in range(max(times // 10, 1)):  # the first fill caches
        wrapper(model)
    for _ in range(readings):
        for _ in range(times // readings):
            wrapper(model)
        read.take(model)
    changed = [name for name, a, b in zip(Portrait._fields, before, portrait(model), strict=True) if a != b]
    return list(read.lines(warm=0)), changed


def size_of_a_history(series: int = 30, numbers: int = 500) -> tuple[float, float]:
    """Bytes that a number of a history takes, while it waits on its device and when it was read."""
    history, value = History(), torch.tensor(0.5)
    readings = [resident()]
    for step in range(numbers):
        history.step = 20 * step
        history.log({f"series {i}": value for i in range(series)})
    readings.append(resident())
    assert len(history.to_numpy()) == series
    readings.append(resident())
    return tuple((reading - readings[0]) * MIB / series / numbers for reading in readings[1:])


def main() -> None:
    """Measure, print, complain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="of the training; a tenth as often each wrapper")
    steps = parser.parse_args().steps
    warnings.simplefilter("error")
    Training().run(50)
    for wrapper in WRAPPERS.values():
        wrapper(subject(wrapper))
    gc.collect()
    gc.freeze()  # what is loaded by now is not counted again and again

    print(f"training, {steps} steps\n{'':20} {'first':>20} {'last':>20} {'change':>8} {'bound':>6}")
    lines = soak(steps)
    print(*lines, sep="\n")
    broken = [line.what for line in lines if line.broken]

    print(f"\nwrappers, {steps // 10} times each; change\n{'':30} {'memory, MiB':>12}", *Census._fields, "model")
    widths = [12, *map(len, Census._fields)]
    for name, wrapper in WRAPPERS.items():
        lines, changed = wear(wrapper, steps // 10)
        figures = [f"{line.change:>{width}.3g}" for line, width in zip(lines, widths, strict=True)]
        print(f"{name:30}", *figures, ", ".join(changed) or "as it was")
        broken += [f"{name} ({what})" for what in {line.what for line in lines if line.broken}.union(changed)]

    waiting, read = size_of_a_history()
    print(f"\na number in a history takes {waiting:.0f} bytes while it waits on its device, {read:.0f} once it is read")
    print(f"{time.process_time():.0f} s of one core")
    if broken:
        sys.exit(f"broken: {', '.join(broken)}")


if __name__ == "__main__":
    main()
