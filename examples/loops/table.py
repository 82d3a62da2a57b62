"""Journeys by loops: the largest difference of any parameter to the plain loop, after all steps.

    python examples/loops/table.py [LOOP ...]

The loops of one process are compared with the plain loop bit for bit: `amp` with one under the same autocast,
`accumulation` with one that keeps the gradients of the small batches apart and takes their mean. `ddp` and `fsdp2` run
in two processes and are compared with one that has the whole batch.
"""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import plain
import torch
import torch.distributed as dist
from accumulation import SMALL
from journeys import DEVICE, Journey, Streams, batches, ogm, ogm_under_adam, pmr, regrad
from torch import Tensor
from torch.distributed.tensor import DTensor

JOURNEYS: dict[str, tuple[bool, Journey]] = {  # whether branches are coupled
    "ReGrad, late fusion": (False, regrad),
    "ReGrad, late fusion, `independent=True`": (False, partial(regrad, independent=True)),
    "ReGrad, adapters between branches": (True, regrad),
    "PMR": (False, pmr),
    "OGM on features": (False, ogm),
    "OGM on updates, Adam": (False, ogm_under_adam),
}
LOOPS = ("amp", "accumulation", "resume", "ddp", "fsdp2", "lightning_module", "hf_trainer", "accelerate_loop")
SEVERAL = ("ddp", "fsdp2")

Train = Callable[[Streams, Journey], object]
Found = dict[str, list[Tensor] | str]


def trained(train: Train) -> Found:
    """The parameters after each journey, or what the library says where it refuses."""
    found: Found = {}
    for name, (coupled, journey) in JOURNEYS.items():
        model = Streams(coupled=coupled)
        try:
            train(model, journey)
            tensors = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
            found[name] = [t.detach().cpu() for t in tensors]
        except RuntimeError as error:
            found[name] = str(error)
    return found


def under_autocast(model: Streams, journey: Journey) -> None:
    """The plain loop, with the loss in bfloat16 where autocast says so."""
    optimizer, loss_of = journey(model)

    def cast(*batch: Any) -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            return loss_of(*batch)

    plain.train(model, lambda _: (optimizer, cast))


def averaged(model: Streams, journey: Journey) -> None:
    """The plain loop with the mean of the small batches' gradients, each made alone."""
    optimizer, loss_of = journey(model)
    sums: dict[Tensor, Tensor] = {}
    for step, (x, y) in enumerate(batches(), start=1):
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        for p in model.parameters():
            if p.grad is not None:
                sums[p] = sums[p] + p.grad if p in sums else p.grad
        if step % SMALL == 0:
            for p, gradient in sums.items():
                p.grad = gradient / SMALL
            optimizer.step()
            sums = {}


REFERENCES: dict[str, Train] = {"amp": under_autocast, "accumulation": averaged}


def column(loop: str) -> dict[str, float | str]:
    """The difference of each journey."""
    expected = trained(REFERENCES.get(loop, plain.train))
    if loop in SEVERAL:
        dist.init_process_group()
    found = trained(import_module(loop).train)
    cells: dict[str, float | str] = {}
    for name, tensors in found.items():
        if isinstance(tensors, str):
            cells[name] = tensors
        else:
            gaps = [(a - b).abs().max().item() for a, b in zip(tensors, expected[name], strict=True)]
            cells[name] = max(gaps)
    return cells


def in_several_processes(loop: str) -> dict[str, float | str]:
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", str(Path(__file__)), "--rank-of", loop]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("loops", nargs="*", metavar="LOOP", help=", ".join(LOOPS))
    parser.add_argument("--rank-of", choices=SEVERAL, help="what torchrun runs")
    args = parser.parse_args()
    if args.rank_of:
        cells = column(args.rank_of)
        if dist.get_rank() == 0:
            print(json.dumps(cells), flush=True)
        dist.barrier()
        os._exit(0)  # DTensor keeps gloo's threads, and one that frees a tensor while Python ends would abort
    columns = {loop: (in_several_processes if loop in SEVERAL else column)(loop) for loop in args.loops or LOOPS}
    print(f"| journey | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    refusals: list[str] = []
    for name in JOURNEYS:
        print(f"| {name} | {' | '.join(shown(cells[name], refusals) for cells in columns.values())} |")
    for number, text in enumerate(refusals, start=1):
        print(f"\n[{number}] {text}")


def shown(cell: float | str, refusals: list[str]) -> str:
    """A number, or where to read what the library says."""
    if not isinstance(cell, str):
        return f"{cell:.0e}" if cell else "0"
    if cell not in refusals:
        refusals.append(cell)
    return f"refused [{refusals.index(cell) + 1}]"


if __name__ == "__main__":
    main()
