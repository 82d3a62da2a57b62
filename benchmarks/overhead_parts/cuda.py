"""Section "cuda": time, peak memory, copy bandwidth and host synchronisations on a GPU, where there is one."""

import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from instruments.meters import interleaved, peak_of
from instruments.report import Report, ratio

from .cases import coupled, late, sizes
from .whole import variants


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


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """Late fusion and coupled."""
    if not torch.cuda.is_available():
        report.say("\nCUDA: there is none here; nothing was measured on a GPU.")
        return
    report.say(f"\n{torch.cuda.get_device_name()}: a copy moves {bandwidth():.0f} GB/s")
    for make in (late, coupled):
        title, made = make(width=768, device="cuda")
        steps = variants(made, apart=make is late, quick=quick)
        times = interleaved(steps, rounds)
        rows = []
        for name, variant in steps.items():
            peak = peak_of(variant)
            waits = synchronisations(variant.step)
            made.model.zero_grad(set_to_none=True)
            report.keep("cuda", title, name, "seconds", times[name])
            report.keep("cuda", title, name, "peak bytes", [peak])
            report.keep("cuda", title, name, "synchronisations", [waits])
            rows.append((name, ratio(times[name], times["plain"]), f"{peak / 1e6:.0f}", str(waits)))
        header = ("", "time / plain", "peak, MB", "synchronisations")
        report.table(f"On the GPU, {title}: {sizes(made)}.", header, rows)
