"""Time, interleaved in rotating order; and peak memory, exact, from the allocator's own events."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

Key = TypeVar("Key")


class Variant(NamedTuple):
    """A step of a model. `repeat` steps are timed together where single ones differ by design."""

    model: nn.Module
    step: Callable[[], Any]
    repeat: int = 1


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection in the block; one before it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def on_cuda(model: nn.Module) -> bool:
    """Whether the model has parameters, and they live there."""
    first = next(model.parameters(), None)
    return first is not None and first.is_cuda


def settle(model: nn.Module) -> None:
    """Wait for the device of the model, if it has one of its own."""
    if on_cuda(model):
        torch.cuda.synchronize()


def plain(step: Callable[[], Any], repeat: int = 1) -> Variant:
    """A call that leaves no gradients behind."""
    return Variant(nn.Identity(), step, repeat)


def seconds(variant: Variant, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one step. Gradients are dropped before it, outside the timed part, and after it."""
    variant.model.zero_grad(set_to_none=True)
    settle(variant.model)
    spent = 0.0
    for _ in range(variant.repeat):
        began = clock()
        variant.step()
        settle(variant.model)
        spent += clock() - began
        variant.model.zero_grad(set_to_none=True)
    return spent / variant.repeat


def interleaved(
    variants: Mapping[Key, Variant], rounds: int, warm: int = 2, clock: Callable[[], float] = time.perf_counter
) -> dict[Key, list[float]]:
    """Seconds of each variant in each round, after `warm` rounds; each round starts with the next variant.

    With ``clock=time.thread_time`` and one thread, what other processes do at the same time hardly counts.
    """
    names = list(variants)
    times: dict[Key, list[float]] = {name: [] for name in names}
    for r in range(-warm, rounds):
        with without_collection():
            for k in range(len(names)):
                name = names[(k + r) % len(names)]
                spent = seconds(variants[name], clock)
                if r >= 0:
                    times[name].append(spent)
    return times


def peak_bytes(step: Callable[[], Any]) -> int:
    """The most bytes that the CPU's allocator held above the level before `step`.

    What existed before (parameters, inputs) is not counted, nor is scratch space that a kernel allocates by itself.
    """
    with without_collection(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    assert record.profiler is not None
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


def peak_of(variant: Variant) -> int:
    """Peak bytes of one step from a clean start. The gradients are part of it."""
    variant.model.zero_grad(set_to_none=True)
    if on_cuda(variant.model):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        variant.step()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        peak = peak_bytes(variant.step)
    variant.model.zero_grad(set_to_none=True)
    return peak
