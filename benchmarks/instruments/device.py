"""What only a GPU has: the bandwidth of a copy, and a host that waits for it."""

import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch


def bandwidth(megabytes: int = 512, repeats: int = 10) -> float:
    """GB/s read and written by a copy on the device."""
    source = torch.empty(megabytes << 18, device="cuda")
    target = torch.empty_like(source)
    spent = []
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        target.copy_(source)
        ended.record()
        torch.cuda.synchronize()
        spent.append(began.elapsed_time(ended) / 1000)
    return 2 * (megabytes << 20) / statistics.median(spent) / 1e9


def synchronisations(step: Callable[[], Any]) -> int:
    """How often the host waited for the device in one step."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)
