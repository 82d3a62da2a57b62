"""What gradient surgery costs, measured in one run beside plain steps, bare passes and other implementations.

    python benchmarks/overhead.py [--quick] [--only SECTION ...] [--rounds N] [--out DIR]

Variants are interleaved in every round, in rotating order; printed are medians over rounds with the quartiles. Times
are ratios to a plain step (a forward and one backward of total + Σ losses) of the same round. Peak memory counts the
bytes allocated above the level before the step. Nothing is asserted about time anywhere. `make bench` tells glibc to
keep freed memory, as CUDA's allocator does: otherwise what is measured is how fast the system hands out fresh pages.

sections
    whole      whole steps of three models: plain, floor, ours, the released procedure, LibMTL's way, TorchJD
    surgery    the arithmetic alone
    coupling   models that meet in some blocks only
    growth     against modalities, parameters and tensors, with fitted laws and a picture
    fidelity   the approximations `every` and `proxy` against the exact rule
    compiled   kernels and bytes of the compiled engine
    walk       the look at the graph, on three ViT-B streams (not in --quick unless named)
    threads    passes on Python threads
    watching   what `diagnostics.watch` adds to a step
    cuda       on a GPU, where there is one
"""

import argparse
import time
import warnings
from functools import partial
from pathlib import Path

from instruments.report import Report
from overhead_parts import compiled, coupling, cuda, fidelity, growth, surgery, threads, walk, watching, whole

SECTIONS = {
    "whole": whole.run,
    "surgery": surgery.run,
    "coupling": coupling.run,
    "growth": growth.run,
    "fidelity": fidelity.run,
    "compiled": compiled.run,
    "walk": walk.run,
    "threads": threads.run,
    "watching": watching.run,
    "cuda": cuda.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller models, fewer rounds: under two minutes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="these sections alone")
    parser.add_argument("--rounds", type=int, help="of the first two sections; 5, or 3 with --quick")
    parser.add_argument("--out", type=Path, default=Path("runs/overhead"), help="where the files go")
    args = parser.parse_args()
    rounds = args.rounds or (3 if args.quick else 5)
    chosen = args.only or [name for name in SECTIONS if not (args.quick and name == "walk")]
    warnings.filterwarnings("ignore", "There is a performance drop")  # of torch.vmap, see the note in `whole`
    report = Report("overhead")
    began = time.perf_counter()
    for name in chosen:
        run = partial(growth.run, out=args.out) if name == "growth" else SECTIONS[name]
        run(report, quick=args.quick, rounds=rounds)
        report.write(args.out)  # after each section: a run that is cut short leaves what it has
    print(f"\n{time.perf_counter() - began:.0f} s in all; written: {args.out}/overhead.csv, {args.out}/overhead.md")


if __name__ == "__main__":
    main()
