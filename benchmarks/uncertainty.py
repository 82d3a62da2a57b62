"""What uncertainty costs, and whether it is true.

    python benchmarks/uncertainty.py [--quick] [--only SECTION ...] [--rounds N] [--out DIR]

Time and memory of every form beside the released loop, torch-uncertainty and baal on the same work; and, on generated
faces whose corrupted tokens are known, how well each source of uncertainty finds them. Times are thread seconds of
variants interleaved in every round, in rotating order, on one thread; printed are medians of ratios with quartiles.
`make bench-uncertainty` installs the two peers and tells glibc to keep freed memory, as CUDA's allocator does:
otherwise what is measured is how fast the system hands out fresh pages.

sections
    feature      dropout on a feature: the released loop, a draw, the expectation, the limit; eager and compiled
    estimators   Monte-Carlo dropout and ensembles, every strategy, beside the peers' loops
    summaries    streaming against stacking
    truth        AUROC of each source against the mask of corrupted tokens, by modality and failure (several minutes)
"""

import argparse
import time
from pathlib import Path

import torch
from instruments.report import Report
from uncertainty_parts import estimators, feature, summaries, truth

SECTIONS = {"feature": feature.run, "estimators": estimators.run, "summaries": summaries.run, "truth": truth.run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller work, fewer rounds and seeds")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="these sections alone")
    parser.add_argument("--rounds", type=int, help="of the timed sections; 11, or 3 with --quick")
    parser.add_argument("--out", type=Path, default=Path("runs/uncertainty"), help="where the files go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report = Report("uncertainty")
    began = time.perf_counter()
    for name in args.only or SECTIONS:
        SECTIONS[name](report, quick=args.quick, rounds=args.rounds or (3 if args.quick else 11))
        report.write(args.out)  # after each section: a run that is cut short leaves what it has
    print(f"\n{time.perf_counter() - began:.0f} s in all; written: {args.out}/uncertainty.csv and .md")


if __name__ == "__main__":
    main()
