"""One function, three kinds of labels: what a prototypical cross-entropy of classes, domains or modalities measures.

    python benchmarks/modality_gap.py [--seeds N] [--target DOMAIN] [--out DIR] [--picture FILE]

MMDG's network is trained on the generated faces of three sites in five ways. On development data that nobody trains on
three cross-entropies to prototypes are taken every ten steps, each as the share of the labels' entropy that distances
to prototypes explain, 1 − PCE / H:

    class       live or attack, in the feature of each modality, then the mean
    domain      live, or an attack of one of the sites (SSP's labels), likewise
    modality    which modality a feature is of, all features in one space

and the gap itself: the distance of two modalities' mean features in units of a feature's distance from its own mean.
Both are large before any training: encoders with weights of their own put different pictures in different places.
Prototypes are the means of one half of the people, and the other half is measured. Thirty-six minutes beside two other
processes on two cores.
"""

import argparse
import statistics
import time
from pathlib import Path

from instruments.report import Report
from modality_gap_parts.picture import draw
from modality_gap_parts.study import study
from modality_gap_parts.trainings import MEASURES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--target", choices="SCWP", default="W", help="the site that is left out")
    parser.add_argument("--out", type=Path, default=Path("runs/modality_gap"))
    parser.add_argument("--picture", type=Path, help="where to draw; OUT/modality_gap.png")
    args = parser.parse_args()
    began = time.perf_counter()
    found = study(args.seeds, args.target, args.out / "data")
    report = Report("modality_gap")
    rows = [
        [name, *(arrow([run.curves[m] for run in runs]) for m in MEASURES), f"{statistics.mean(areas):.1f}"]
        for name, (runs, areas) in found.items()
    ]
    title = f"the first look → the last; {args.target} held out, means over {args.seeds} seeds"
    report.table(title, ("", *MEASURES, f"AUC on {args.target}"), rows)
    for name, (runs, _) in found.items():
        for m in MEASURES:
            for run in runs:
                report.keep("modality_gap", name, "curve", m, run.curves[m])
    report.write(args.out)
    path = draw({name: each.runs for name, each in found.items()}, args.picture or args.out / "modality_gap.png")
    print(f"{path}, {time.perf_counter() - began:.0f} s in all")


def arrow(curves: list[list[float]]) -> str:
    """Means of the first values and of the last."""
    first, last = (statistics.mean(curve[i] for curve in curves) for i in (0, -1))
    return f"{first:.2f} → {last:.2f}"


if __name__ == "__main__":
    main()
