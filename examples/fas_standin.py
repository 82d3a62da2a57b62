"""The generated faces: are they fit to be learnt from, and how to have them as files.

python examples/fas_standin.py accept                     # every criterion, met or NOT MET, with its figures
python examples/fas_standin.py write ROOT --seed 0        # images and lists, laid out like the real data sets
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby, product
from multiprocessing import get_context
from pathlib import Path

import torch
from fas.samples import DOMAINS, SPLITS
from fas.sets.layouts import write_standin
from fas.standin import cached_split
from fas.standin.acceptance import COUNTS, measure_domain, measure_target
from fas.standin.judgement import TITLES, judge


def main() -> None:
    args = arguments()
    if args.command == "write":
        write_standin(args.root, seed=args.seed, counts=args.counts, workers=args.workers)
    else:
        with tempfile.TemporaryDirectory() as folder:
            accept(Path(args.cache or folder), args.seeds, args.domains, args.workers)


def accept(folder: Path, seeds: list[int], domains: list[str], workers: int) -> None:
    """Measure `domains`, by themselves and as targets, with each seed, and print a table a criterion."""
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        drawn = [
            pool.submit(cached_split, folder, domain, split, COUNTS[split], seed=seed)
            for seed, domain, split in product(seeds, DOMAINS, SPLITS)
        ]
        for job in drawn:
            job.result()
        # the long ones first
        jobs = [pool.submit(measure, folder, d, seed) for measure, seed, d in product(
            (measure_target, measure_domain), seeds, domains)]  # fmt: skip
        figures = [figure for job in jobs for figure in job.result()]
    for criterion, lines in groupby(judge(figures), lambda line: line.criterion):
        print(f"\n{criterion}: {TITLES[criterion]}")
        for line in lines:
            print(f"  {'met' if line.met else 'NOT MET':8} {line.where:4} {line.text}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("accept", help="measure every criterion; the exit status does not depend on it")
    check.add_argument("--seeds", type=int, nargs="+", default=[40, 41, 42, 43, 44, 45])
    check.add_argument("--domains", choices=DOMAINS, nargs="+", default=DOMAINS, help="judge these alone")
    check.add_argument("--cache", type=Path, help="keep the generated samples here")
    write = commands.add_parser("write", help="write all domains and splits as files")
    write.add_argument("root", type=Path)
    write.add_argument("--seed", type=int, default=0)
    for split, count in (("train", 500), ("dev", 200), ("test", 800)):
        write.add_argument(f"--{split}", type=int, default=count, help=f"samples a domain, {count} unless given")
    for command in (check, write):
        command.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    args = parser.parse_args()
    if args.command == "write":
        args.counts = {split: getattr(args, split) for split in SPLITS}
    return args


if __name__ == "__main__":
    main()
