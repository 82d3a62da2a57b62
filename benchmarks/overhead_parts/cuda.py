"""Section "cuda": time, peak memory, copy bandwidth and host synchronisations on a GPU, where there is one."""

import torch
from instruments.device import bandwidth, synchronisations
from instruments.meters import interleaved, peak_of
from instruments.report import Report, ratio

from .cases import coupled, late, sizes
from .whole import variants


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
