"""Section "vit": a step of a whole, frozen ViT with adapters beside every block, ours and the released ones.

Three modalities travel through one ViT as one batch; a hub of four adapters stands beside every MLP, and a confidence
is made of every attention's output. Images are random, sizes are ViT-B/16's. Two floors:

    head alone        the backbone makes no graph. Without gradients it is what any use of this ViT costs.
    first block on    the class token is learned, so that gradients travel through all blocks, as they must for any
                      adapter in the first one

The overhead is the time above a floor as a share of it, round by round. Most of the released form's are its passes of
dropout: "released, our confidence" has their expectation instead, so that the adapters alone are compared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from instruments.meters import Variant
from instruments.report import Report, share, spread
from torch import Tensor, nn

from balancekit import fused
from balancekit.adapters import CrossModal, GatedCrossAttention, Parallel, Tap, hub
from balancekit.uncertainty import dropout_confidence

from . import released
from .measure import Measured, forward, measured
from .vit import BASE, SMALL, ViT, frozen_vit

NAMES = ("rgb", "depth", "ir")
HEAD, FIRST = "floor: head alone", "floor: from the first block on"
Size = dict[str, Any]


def first_block_on(size: Size) -> ViT:
    model = frozen_vit(size)
    model.start.requires_grad_(True)
    return model


def with_ours(
    size: Size, *, confidence: Callable[[Tensor], Tensor] = dropout_confidence, compiled: bool = False
) -> ViT:
    """No line of the ViT is rewritten."""
    model = frozen_vit(size)
    make = partial(GatedCrossAttention, size["width"], conv="cdc", grid=size["grid"])
    for block in model.blocks:
        tap = Tap(block.attention, confidence)
        cross = CrossModal(NAMES, hub("rgb", NAMES), make, confidence=tap)
        if compiled:
            for adapter in cross.adapters.values():
                adapter.compile(fullgraph=True, dynamic=False)
        block.mlp = Parallel(block.mlp, cross)
    return model


def with_released(size: Size, *, confidence: Callable[[Tensor], Tensor] = released.dropout_confidence) -> ViT:
    """Its blocks are rewritten, as the released model's are."""
    model = frozen_vit(size)
    make = partial(released.Adapter, size["width"], grid=size["grid"])
    model.blocks = nn.Sequential(*(released.Block(block, released.Hub(make), confidence) for block in model.blocks))
    return model


def models(size: Size, *, compiled: bool) -> dict[str, ViT]:
    made = {HEAD: frozen_vit(size), FIRST: first_block_on(size), "ours": with_ours(size)}
    if compiled:
        made["ours, compiled"] = with_ours(size, confidence=fused.dropout_confidence, compiled=True)
    made["released, our confidence"] = with_released(size, confidence=dropout_confidence)
    return made | {"released": with_released(size)}


def variants(made: dict[str, ViT], images: Tensor, *, trains: bool) -> dict[str, Variant]:
    """A forward pass in evaluation mode, or a step of training. The floors are the same without gradients."""
    labels = torch.zeros(images.shape[0] // len(NAMES), dtype=torch.long, device=images.device)
    named = {}
    for name, model in made.items():
        if trains:

            def step(model: ViT = model) -> None:
                nn.functional.cross_entropy(model(images), labels).backward()

            named[name] = Variant(model.train(), step)
        elif name != FIRST:
            named[name] = forward(model.eval(), partial(model, images))
    return named


HEADER = ("", "ms", "% over: head alone", "% over: first block on", "peak, MiB")


def rows(found: Measured, *more: dict[str, str]) -> list[tuple[str, ...]]:
    """One a variant: milliseconds, per cent above each floor, peak, and what `more` says of it."""
    lines = []
    for name, values in found.seconds.items():
        over = []
        for floor in (HEAD, FIRST):
            base = found.seconds.get(floor)
            over.append(
                share([a - b for a, b in zip(values, base, strict=True)], base)
                if base and name not in (HEAD, floor)
                else "–"
            )
        lines.append((name, spread([1000 * t for t in values]), *over, found.mib(name), *(m[name] for m in more)))
    return lines


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """ViT-B, one sample; with `quick` a ViT of four blocks, 192 wide, two samples, and nothing is compiled."""
    size, batch = (SMALL, 2) if quick else (BASE, 1)
    images = torch.randn(len(NAMES) * batch, 3, 16 * size["grid"], 16 * size["grid"])
    torch.compiler.reset()
    made = models(size, compiled=not quick)
    for title, trains in (("forward", False), ("forward + backward", True)):
        case = f"ViT {size['width']}x{size['depth']}, 3 modalities, {batch} samples, {title}"
        found = measured(report, "vit", case, variants(made, images, trains=trains), rounds)
        report.table(f"{case}.", HEADER, rows(found))
