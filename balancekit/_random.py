"""A generator in, forked global streams out.

Dropout has no ``generator`` argument: it draws from the global stream of its device. To make it repeatable, one seed is
drawn from the caller's generator, the global streams are seeded from it, and their state is put back afterwards.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock

import torch
import torch.distributed as dist
from torch import Tensor


def sample_seed(seed: int, t: int) -> int:
    """Seed of sample `t` under the base `seed`.

    ``seed + t`` would let neighbouring bases share all samples but one. With a large factor they share none, also in
    the lower 32 bits, which is all that the generator of the CPU uses.
    """
    return (seed * 1_000_003 + t) % 2**63


_one_thread = RLock()  # the global streams are those of all threads


@contextmanager
def forked_streams(devices: Iterable[torch.device]) -> Iterator[Callable[[int], None]]:
    """Put the global streams of the CPU and `devices` back afterwards; inside, the yielded function seeds them.

    Other threads that would seed them in this way wait. One that draws from them by itself disturbs the result.
    """
    devices = {torch.device("cpu"), *devices}

    def reseed(seed: int) -> None:
        for device in devices:
            if device.type == "cpu":
                torch.default_generator.manual_seed(seed)  # torch.manual_seed looks for all other devices too
            else:
                _set_state(device, torch.Generator(device).manual_seed(seed).get_state())

    with _one_thread:
        states = {device: _get_state(device) for device in devices}
        try:
            yield reseed
        finally:
            for device, state in states.items():
                _set_state(device, state)


def draw_seed(generator: torch.Generator | None) -> int | None:
    """Draw exactly one number from `generator`, if there is one, as the base seed of a call's samples.

    The rank is folded in, so that ranks with equal generators have different masks.
    """
    if generator is None:
        return None
    drawn = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    return sample_seed(drawn, rank)


def seeded_streams(seed: int | None, devices: Iterable[torch.device]) -> AbstractContextManager[Callable[[int], None]]:
    """Yield the function that starts sample `t`: it seeds the global streams, or does nothing without a seed.

    Without a seed the global streams advance as they do in ordinary training.
    """
    return _AS_THEY_ARE if seed is None else _seeded_streams(seed, devices)


@contextmanager
def _seeded_streams(seed: int, devices: Iterable[torch.device]) -> Iterator[Callable[[int], None]]:
    with forked_streams(devices) as reseed:
        yield lambda t: reseed(sample_seed(seed, t))


_AS_THEY_ARE = nullcontext(lambda t: None)


def stream_states(devices: Iterable[torch.device]) -> list[Tensor]:
    """The states of the global streams of the CPU and `devices`: they differ once anything was drawn."""
    others = [_get_state(device) for device in devices if device.type != "cpu"]
    return [torch.default_generator.get_state(), *others]


def _get_state(device: torch.device) -> Tensor:
    if device.type == "cpu":
        return torch.get_rng_state()
    return torch.get_device_module(device).get_rng_state(device)


def _set_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)
