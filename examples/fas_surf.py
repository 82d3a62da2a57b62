"""Face anti-spoofing with three sensors and a domain that training never saw: the whole of MMDG, part by part.

    python examples/fas_surf.py              # generated data, domain W held out: a table, and pictures in runs/
    python examples/fas_surf.py --target C --ablate regrad --ablate uem ssp
    python examples/fas_surf.py --data ROOT --lists S:train=… S:dev=… C:train=… C:dev=… W:test=… --target W

Trained on three domains, tested on the fourth. The threshold comes from the development sets of the three training
domains; nothing is chosen on the test domain. One seed ranks nothing: over seeds these figures move by several points.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from fas.evaluation.metrics import Scored
from fas.evaluation.report import Report, evaluate
from fas.output import pictures
from fas.samples import DOMAINS, MODALITIES, Samples, concatenate
from fas.sets.images import load_images
from fas.sets.lists import read_list
from fas.standin import cached_split
from fas.train import Options, System, fit, score
from tqdm import tqdm

PLAIN = System(adapter=False, uem=False, ssp=False, regrad=False)
PARTS = ("adapter", "uem", "ssp", "regrad")
COUNTS = {"train": 500, "dev": 200, "test": 800}


def main() -> None:
    args = arguments()
    began = time.perf_counter()
    read = from_lists if args.data else generated
    train, dev, test = read(args)
    for name, samples in (("train", train), ("dev", dev), ("test", test)):
        shown = ", ".join(sorted({DOMAINS[d] for d in samples.domain.tolist()}))
        print(f"{name:5} {shown:8} {int(samples.live.sum()):5} live {int((~samples.live).sum()):5} attacks")

    systems = {f"{m} alone": PLAIN._replace(modalities=(m,)) for m in MODALITIES}
    systems |= {"concatenation": PLAIN, "full": System()}
    for off in args.ablate or []:
        systems["without " + ", ".join(off)] = System()._replace(**dict.fromkeys(off, False))
    options = Options(epochs=args.epochs, seed=args.seed)

    fitted, dev_scores, test_scores, confidence = {}, {}, {}, {}
    # a step with surgery costs about four without: the bar counts plain steps, so that its time left is true
    cost = {name: len(system.modalities) * (4 if system.ssp else 1) for name, system in systems.items()}
    total = sum(cost.values()) * options.epochs * (len(train.live) // options.batch)
    form = "{desc:>16} {percentage:3.0f}% |{bar:30}| {elapsed}, {remaining} left"
    often = 0.1 if sys.stderr.isatty() else 10.0  # seconds between two states of the bar
    with tqdm(total=total, bar_format=form, mininterval=often) as bar:
        for name, system in systems.items():
            bar.set_description(name)
            place = args.out / "checkpoints" / f"{name.replace(' ', '-').replace(',', '')}.pt"
            advance = partial(advanced, bar, cost[name])
            fitted[name] = fit(system, train, options, checkpoint=place, resume=args.resume, progress=advance)
            dev_scores[name], _ = score(fitted[name].model, dev)
            test_scores[name], confidence[name] = score(fitted[name].model, test)
    for scores in (dev_scores, test_scores):  # the mean log-odds of the three: a baseline that papers leave out
        scores["late mean"] = torch.stack([scores[f"{m} alone"] for m in MODALITIES]).mean(0)

    order = [name for name in (*list(systems)[:3], "late mean", *list(systems)[3:]) if name in test_scores]
    reports = {
        name: evaluate(
            Scored(dev_scores[name].numpy(), dev.live.numpy(), dev.kind_names),
            Scored(test_scores[name].numpy(), test.live.numpy(), test.kind_names),
        )
        for name in order
    }
    print(table(reports, args.target))
    print(f"\nfull, in detail\n{reports['full']}")
    print("\nWho was fastest (lowest prototype loss), and where gradients met in conflict")
    for name, system in systems.items():
        history = fitted[name].history
        if len(system.modalities) > 1:
            took = sum(history.fastest.values())
            fast = ", ".join(f"{m} {100 * n / took:.0f} %" for m, n in history.fastest.items())
            met = (
                f"; {100 * sum(history.conflicts) / len(history.conflicts):.0f} % of pairs" if history.conflicts else ""
            )
            print(f"{name:>16}: {fast}{met}")

    draw(args.out, test, fitted, reports, test_scores, confidence["full"], order)
    print(f"\npictures in {args.out}/   {time.perf_counter() - began:.0f} s in all")


def advanced(bar: tqdm, cost: int, steps: int) -> None:
    bar.update(cost * steps)


def table(reports: dict[str, Report], target: str) -> str:
    """One line a system, in percent, at the threshold of the development sets."""
    columns = ("AUC", "HTER", "APCER", "max APCER", "BPCER", "ACER", "max ACER", "dev AUC")
    lines = ["", f"{'→ ' + target:>24}" + "".join(column.rjust(11) for column in columns)]
    for name, r in reports.items():
        at = r.dev_eer
        rates = (r.auc, r.hter, at.apcer, at.apcer_max, at.bpcer, at.acer, at.acer_max, r.dev_auc)
        lines.append(f"{name:>24}" + "".join(f"{100 * rate:11.1f}" for rate in rates))
    return "\n".join(lines)


def draw(
    out: Path, test: Samples, fitted: dict, reports: dict, scores: dict, confidence: dict, order: list[str]
) -> None:
    """Everything that is easier seen than read."""
    curves = {
        name: {m: smooth(values) for m, values in fitted[name].history.losses.items()}
        for name in fitted
        if len(fitted[name].history.losses) > 1
    }
    pictures.draw_convergence(curves, out / "convergence.png", y="prototype loss of the branch")
    pictures.draw_roc({name: (scores[name].numpy(), test.live.numpy()) for name in order}, out / "roc.png")
    for name in ("concatenation", "full"):
        place = out / f"scores-{name}.png"
        pictures.draw_scores(
            scores[name].numpy(), test.live.numpy(), reports[name].dev_eer.threshold, place, title=name
        )
    pictures.draw_contact_sheet(test, out / "attacks.png")
    uncertainty = {m: 1 - c.numpy() for m, c in confidence.items()}
    rows = test.corrupted.flatten(1).sum(1).argsort(descending=True)[:6].tolist()
    pictures.draw_uncertainty(test, uncertainty, out / "uncertainty.png", rows=rows)


def smooth(values: list[float], width: int = 15) -> list[float]:
    """A running mean, so that a curve of noisy batches can be read."""
    return [sum(values[max(0, i - width) : i + 1]) / len(values[max(0, i - width) : i + 1]) for i in range(len(values))]


def wanted(target: str) -> Iterator[tuple[str, str]]:
    """The (domain, split) pairs of the leave-one-domain-out protocol."""
    for split in ("train", "dev"):
        yield from ((domain, split) for domain in DOMAINS if domain != target)
    yield target, "test"


def generated(args: argparse.Namespace) -> Iterable[Samples]:
    """The stand-in, drawn once and kept in the cache."""
    pairs = list(wanted(args.target))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        drawn = [
            pool.submit(cached_split, args.cache, domain, split, COUNTS[split], seed=args.seed)
            for domain, split in pairs
        ]
        parts = {pair: future.result() for pair, future in zip(pairs, drawn, strict=True)}
    return (concatenate([part for pair, part in parts.items() if pair[1] == split]) for split in COUNTS)


def from_lists(args: argparse.Namespace) -> Iterable[Samples]:
    """Real list files; what is skipped or odd is printed, by file and line."""
    pairs = list(wanted(args.target))
    needed = " ".join(f"{domain}:{split}=FILE" for domain, split in pairs)
    given = {}
    for entry in args.lists:
        where, _, path = entry.partition("=")
        domain, _, split = where.partition(":")
        if (domain, split) not in pairs or not Path(path).is_file():
            raise SystemExit(f"--lists: expected existing files as {needed}, found {entry!r}")
        given[domain, split] = Path(path)
    parts = {}
    for domain, split in pairs:
        if (domain, split) in given:
            records, report = read_list(given[domain, split], args.data, domain)
            print(report)
            samples, unreadable = load_images(records)
            for message in unreadable:
                print(f"  skipped {message}")
            parts[domain, split] = samples
    for split in COUNTS:
        if not any(pair[1] == split for pair in parts):
            raise SystemExit(f"--lists: expected at least one {split} list of {needed}, found {list(given)}")
    return (concatenate([part for pair, part in parts.items() if pair[1] == split]) for split in COUNTS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=DOMAINS, default="W", help="the domain that training does not see")
    parser.add_argument("--ablate", nargs="+", choices=PARTS, action="append", help="also train without these parts")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fas_surf"))
    parser.add_argument("--cache", type=Path, default=Path("runs/stand-in"), help="where generated data are kept")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="the folder that the list files' paths start from")
    parser.add_argument(
        "--lists", nargs="+", default=[], metavar="D:SPLIT=FILE", help="such as S:train=lists/train.txt"
    )
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"--epochs: expected at least 1, found {args.epochs}")
    if bool(args.lists) != bool(args.data):
        parser.error("--lists and --data: expected both or neither")
    return args


if __name__ == "__main__":
    main()
