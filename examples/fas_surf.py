"""Face anti-spoofing with three sensors and a domain that training never saw: MMDG and its peers, on one harness.

    python examples/fas_surf.py                                  # one target, one seed: a table and a report in runs/
    python examples/fas_surf.py --protocol P1 --all --seeds 5    # the whole table, with intervals
    python examples/fas_surf.py --protocol P1 P2 P3 --all --seeds 5 --ablation --resume
    python examples/fas_surf.py --data ROOT --lists S:train=… S:dev=… C:train=… C:dev=… W:test=… --target W
    python examples/fas_surf.py score runs/fas_surf/CPS/seed-0/MMDG FOLDER   # images in FOLDER/{rgb,depth,infrared}
    torchrun --nproc-per-node 2 examples/fas_surf.py --systems MMDG

Protocols: P1 leaves one data set out; P2 is P1 with depth, infrared or both missing in the test; P3 trains on two sets;
WMCA leaves one attack out; flexible tests on any set of sensors. Thresholds and the best epoch come from development
data of the training domains; nothing is chosen on the test. One seed ranks nothing.
"""

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from fas import scoring
from fas.backbones import backbone
from fas.plan import Plan, Unit, units
from fas.protocols import PROTOCOLS, cells, needed
from fas.reporting import report
from fas.samples import DOMAINS
from fas.scores import results
from fas.sets.descriptors import DESCRIPTORS
from fas.sources import Lists, Standin
from fas.study import run_all
from fas.systems import ABLATION, SYSTEMS
from fas.training import Options, place
from torch import distributed as dist
from tqdm import tqdm


def main() -> None:
    if sys.argv[1:2] == ["score"]:
        scoring.main(sys.argv[2:])
        return
    args = arguments()
    if "RANK" in os.environ:  # torchrun
        dist.init_process_group()
    rank, processes = place()
    plan = planned(args)
    pairs = dict.fromkeys(pair for cell in plan.cells for part in needed(cell) for pair in part)
    began = time.perf_counter()
    if rank == 0:
        for line in plan.source.prepare(plan.seeds, pairs):
            print(line, flush=True)
    if processes > 1:
        dist.barrier()

    for reason in carried_out(plan, 1 if processes > 1 else args.jobs, quiet=rank > 0):
        print(f"left out: {reason}")
    if rank == 0:
        print("writing the report", flush=True)
        took = f"{(time.perf_counter() - began) / 60:.1f} minutes"
        report(plan, results(plan), took)
    if processes > 1:
        dist.destroy_process_group()


def carried_out(plan: Plan, jobs: int, *, quiet: bool) -> Iterable[str]:
    """Run the plan under one progress bar, whose unit is an epoch of the plain baseline: so its time left is true."""
    todo = units(plan)
    epochs = plan.options.epochs
    share: dict[Unit, float] = defaultdict(float)
    form = "{percentage:3.0f}% |{bar:30}| {elapsed}, {remaining} left  {desc}"
    often = 0.1 if sys.stderr.isatty() else 15.0  # seconds between two states of the bar
    total = sum(unit.cost(epochs) for unit in todo)
    with tqdm(total=total, bar_format=form, mininterval=often, disable=quiet) as bar:

        def progress(unit: Unit, done: float) -> None:
            bar.set_description_str(f"{unit.system}, {unit.cells[0].name}, seed {unit.seed}", refresh=False)
            bar.update(min(unit.cost(1) * (done - share[unit]), total - bar.n))  # no rounding beyond the end
            share[unit] = done

        yield from run_all(plan, jobs, progress)


def planned(args: argparse.Namespace) -> Plan:
    """From the arguments."""
    chosen = tuple(c for p in args.protocol for c in cells(p) if args.all or "".join(c.targets) == args.target)
    if not chosen:
        raise SystemExit(f"--target: expected a target of {' '.join(args.protocol)}, found {args.target!r}")
    if args.data:
        source = Lists(args.data, given_lists(args.lists), args.cache, args.size, args.workers)
    else:
        source = Standin(args.cache, args.jobs)
    options = Options(
        epochs=args.epochs, batch=args.batch, lr=args.lr, infrared=tuple(args.infrared), pretrain=args.pretrain,
        amp=args.amp, device=args.device, workers=args.workers,
    )  # fmt: skip
    systems = (*args.systems, *(ABLATION if args.ablation else ()))
    seeds = tuple(range(args.seed, args.seed + args.seeds))
    backbone(args.backbone, args.weights)  # fails early
    kept = args.resume, args.checkpoint_every
    return Plan(chosen, systems, seeds, source, args.out, options, args.backbone, args.weights, *kept)


def given_lists(entries: list[str]) -> dict[tuple[str, str], Path]:
    """--lists as {(domain, split): path}."""
    given = {}
    for entry in entries:
        where, _, path = entry.partition("=")
        domain, _, split = where.partition(":")
        if domain not in DOMAINS or split not in ("train", "dev", "test") or not Path(path).is_file():
            raise SystemExit(
                f"--lists: expected existing files as DOMAIN:SPLIT=FILE, such as S:train=…, found {entry!r}"
            )
        given[domain, split] = Path(path)
    return given


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--protocol", nargs="+", choices=PROTOCOLS, default=["P1"])
    add("--target", default="W", help="the test domain, such as W, or PS in P3")
    add("--all", action="store_true", help="all cells of the protocol")
    add("--systems", nargs="+", choices=[*SYSTEMS, *ABLATION], default=list(SYSTEMS), metavar="NAME",
        help=f"of {', '.join(SYSTEMS)}; with each modality alone, their late mean comes for nothing")  # fmt: skip
    add("--ablation", action="store_true", help="also MMDG without each of its parts")
    add("--seeds", type=int, default=1, help="how many")
    add("--seed", type=int, default=0, help="the first")
    add("--epochs", type=int, default=3)
    add("--batch", type=int, default=24)
    add("--lr", type=float, default=3e-3)
    add("--backbone", default="small", help="small, timm:MODEL or transformers:FOLDER")
    add("--weights", type=Path, metavar="FILE", help="of the backbone")
    add("--pretrain", type=int, default=0, metavar="STEPS", help="of M²A²E, without labels, before each training")
    add("--infrared", nargs="+", choices=list(DESCRIPTORS), default=["grey"], help="what the infrared input is made of")
    add("--amp", choices=("off", "bf16", "fp16"), default="off")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--jobs", type=int, default=1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1),
        help="trainings side by side")  # fmt: skip
    add(
        "--workers",
        type=int,
        default=0,
        help="processes that fetch the batches of each training, threads that read images",
    )
    add("--out", type=Path, default=Path("runs/fas_surf"))
    add("--cache", type=Path, default=Path("runs/stand-in"), help="where generated and packed data are kept")
    add("--resume", action="store_true", help="go on from what is in --out")
    add("--checkpoint-every", type=int, default=0, metavar="STEPS", help="besides each epoch's end")
    add("--data", type=Path, metavar="ROOT", help="the folder that the list files' paths start from")
    add("--lists", nargs="+", default=[], metavar="D:SPLIT=FILE", help="such as S:train=lists/train.txt")
    add("--size", type=int, default=64, help="pixels to which images of --lists are resized")
    args = parser.parse_args()
    for name in ("epochs", "batch", "seeds", "jobs", "size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}: expected at least 1, found {getattr(args, name)}")
    if args.pretrain and args.infrared != ["grey"]:
        parser.error(f"--pretrain: expected --infrared grey with it, found {' '.join(args.infrared)}")
    if args.backbone != "small" and (args.ablation or "without U-Adapter" in args.systems):
        parser.error("--ablation: expected --backbone small, for in a shared one only adapters belong to a modality")
    if bool(args.lists) != bool(args.data):
        parser.error("--lists and --data: expected both or neither")
    return args


if __name__ == "__main__":
    main()
