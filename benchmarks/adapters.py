"""What adapters cost, beside the released form of the same adapters and beside the frozen backbone without any.

    python benchmarks/adapters.py [--quick] [--only SECTION ...] [--rounds N] [--out DIR]

The released form is re-derived from the equations: every map of logits is made, the confidence is expanded to it, the
central-difference convolution is two convolutions, and a confidence takes 20 passes of dropout. Times are thread
seconds of variants interleaved in every round, in rotating order, on one thread; printed are medians of ratios with
quartiles. Peak memory is exact, counted from the allocator's events. `make bench-adapters` tells glibc to keep freed
memory, as CUDA's allocator does: otherwise what is measured is how fast the system hands out fresh pages.

sections
    attention  the gated attention alone, 64 to 4096 tokens, four widths; eager, and a few shapes compiled
    adapter    the whole adapter with its convolution, under every gate
    vit        a step of a frozen ViT-B/16 with three modalities: without adapters, with ours, with the released ones
    cuda       all three on a GPU, where there is one; with host synchronisations
"""

import argparse
import time
from pathlib import Path

from adapters_parts import adapter, attention, cuda, step
from instruments.report import Report
from torch import set_num_threads

SECTIONS = {"attention": attention.run, "adapter": adapter.run, "vit": step.run, "cuda": cuda.run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller work, fewer rounds, nothing compiled")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="these sections alone")
    parser.add_argument("--rounds", type=int, help="5, or 3 with --quick")
    parser.add_argument("--out", type=Path, default=Path("runs/adapters"), help="where the files go")
    args = parser.parse_args()
    set_num_threads(1)
    report = Report("adapters")
    began = time.perf_counter()
    for name in args.only or SECTIONS:
        SECTIONS[name](report, quick=args.quick, rounds=args.rounds or (3 if args.quick else 5))
        report.write(args.out)  # after each section: a run that is cut short leaves what it has
    print(f"\n{time.perf_counter() - began:.0f} s in all; written: {args.out}/adapters.csv and .md")


if __name__ == "__main__":
    main()
