"""Section "cuda": attention, whole adapter and ViT-B step on a GPU, where there is one, in float32 and bfloat16.

Heads of one channel, MMDG's, are padded to eight there: the fused kernels take them then, and no map is kept.
Wall-clock time of steps of training that end with a synchronisation; the device allocator's peak; how often the host
waits for the device within a step.
"""

from functools import partial

import torch
from instruments.device import bandwidth, synchronisations
from instruments.meters import Variant
from instruments.report import Report, ratio, spread

from . import adapter, attention, step
from .measure import Measured, backward, measured
from .vit import BASE, SMALL

DTYPES = (torch.float32, torch.bfloat16)
RELEASED = "released"
LIMIT = 48 << 30


def timed(report: Report, case: str, variants: dict[str, Variant], rounds: int) -> tuple[Measured, dict[str, str]]:
    """Times and peaks of the variants, and synchronisations of one step of each."""
    found = measured(report, "cuda", case, variants, rounds)
    waits = {}
    for name, variant in variants.items():
        waits[name] = synchronisations(variant.step)
        variant.model.zero_grad(set_to_none=True)
        report.keep("cuda", case, name, "synchronisations", [waits[name]])
    return found, {name: str(count) for name, count in waits.items()}


def against_released(report: Report, case: str, variants: dict[str, Variant], rounds: int) -> None:
    """A table of times over the released form's."""
    found, waits = timed(report, case, variants, rounds)
    base = found.seconds.get(RELEASED)
    rows = [
        (name, spread([1000 * t for t in values]), ratio(base, values) if base else "–", found.mib(name), waits[name])
        for name, values in found.seconds.items()
    ]
    header = ("", "ms", "times faster", "peak, MiB", "synchronisations")
    report.table(f"On the GPU, {case}, forward + backward.", header, rows)


def attentions(quick: bool) -> list[attention.Case]:
    if quick:
        return [attention.Case(197, 8, 8)]
    return [*(attention.Case(tokens, 8, 8) for tokens in (197, 1024, 4096)), attention.Case(1024, 768, 12)]


def measure(report: Report, *, quick: bool, rounds: int, device: str) -> None:
    """All three on a device, which may be a CPU to see them run."""
    dim, batch = (192, 4) if quick else (768, 16)
    size, samples = (SMALL, 2) if quick else (BASE, 16)
    for dtype in DTYPES:
        to = {"device": device, "dtype": dtype}
        kind = str(dtype).removeprefix("torch.")
        for case in attentions(quick):
            it = attention.problem(case, **to)
            forms = {n: form for n, form in attention.FORMS.items() if n != RELEASED or case.released_bytes() <= LIMIT}
            variants = {name: backward(it.qkv, partial(it.call, form), it.upstream) for name, form in forms.items()}
            against_released(report, f"attention, {case}, {kind}", variants, rounds)

        given = adapter.inputs(dim, grid=14, batch=batch, **to)
        works = {n: adapter.Work(made, given).train() for n, made in adapter.adapters(dim, grid=14, **to).items()}
        variants = {name: backward(work, work, given.upstream) for name, work in works.items()}
        against_released(report, f"whole adapter, width {dim}, batch {batch}, {kind}", variants, rounds)

        images = torch.randn(len(step.NAMES) * samples, 3, 16 * size["grid"], 16 * size["grid"]).to(**to)
        models = {name: model.to(**to) for name, model in step.models(size, compiled=False).items()}
        case = f"ViT {size['width']}x{size['depth']}, 3 modalities, {samples} samples, {kind}"
        found, waits = timed(report, case, step.variants(models, images, trains=True), rounds)
        rows = step.rows(found, waits)
        report.table(f"On the GPU, {case}, forward + backward.", (*step.HEADER, "synchronisations"), rows)


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """Nothing without a GPU."""
    if not torch.cuda.is_available():
        report.say("\nCUDA: there is none here; nothing was measured on a GPU.")
        return
    report.say(f"\n{torch.cuda.get_device_name()}: a copy moves {bandwidth():.0f} GB/s")
    measure(report, quick=quick, rounds=rounds, device="cuda")
