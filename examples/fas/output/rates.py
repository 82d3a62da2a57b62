"""Tables of the single rates: at the three thresholds, by kind of attack, at a fixed share of accepted attacks."""

from collections.abc import Sequence

import numpy as np

from fas.evaluation.report import RATES, Report, evaluate
from fas.evaluation.results import Result

from .layout import Table, percent
from .tables import chosen

_ROWS = (
    ("development EER", "dev_eer"),
    ("development BPCER 1 %", "dev_bpcer1"),
    ("test EER (oracle)", "oracle"),
)


def reports(results: Sequence[Result], *, epoch: str = "last") -> dict[str, list[Report]]:
    """The reports of each system over its cells and seeds."""
    return {system: [evaluate(r.dev, r.test) for r in part] for system, part in chosen(results, epoch).items()}


def rates_table(found: dict[str, list[Report]]) -> Table:
    """Every rate at every threshold, means over cells and seeds."""
    fields = ("apcer", "apcer_max", "bpcer", "acer", "acer_max")
    lines = [
        [system, words, *(percent(np.mean([getattr(getattr(r, name), field) for r in part])) for field in fields)]
        for system, part in found.items()
        for words, name in _ROWS
    ]
    return Table(
        "Error rates in % at three thresholds, means over cells and seeds",
        ["system", "threshold", "APCER", "max APCER", "BPCER", "ACER", "max ACER"],
        lines,
        "ACER with pooled APCER is HTER. The oracle threshold is chosen on the test set itself: nobody could have used "
        "it. Most papers of the field report HTER at it.",
    )


def attack_table(found: dict[str, list[Report]]) -> Table:
    """APCER of each kind at the development EER threshold, a column a system; counts over all cells and seeds."""
    kinds = sorted({kind for part in found.values() for r in part for kind in r.dev_eer.per_attack}, key=str)
    lines = []
    for kind in kinds:
        line = [str(kind)]
        for part in found.values():
            seen = [r.dev_eer.per_attack[kind] for r in part if kind in r.dev_eer.per_attack]
            accepted, presented = sum(row[1] for row in seen), sum(row[2] for row in seen)
            line.append(f"{percent(accepted / presented)} ({accepted}/{presented})" if presented else "–")
        lines.append(line)
    return Table(
        "APCER by kind of attack in % (accepted/presented), development EER threshold",
        ["attack", *found],
        lines,
        "Counts are summed over cells and seeds. A kind with few samples says little.",
    )


def tpr_table(found: dict[str, list[Report]]) -> Table:
    """TPR at fixed FPR: the mean over cells and seeds, with the counts behind it."""
    lines = []
    for system, part in found.items():
        line = [system]
        for rate in RATES:
            at = [r.tpr[rate] for r in part]
            live, attacks = sum(a.live_accepted for a in at), sum(a.attacks_accepted for a in at)
            line.append(
                f"{percent(np.mean([a.tpr for a in at]))} ({live}/{sum(a.live for a in at)} live, {attacks} of "
                f"{sum(a.attacks_allowed for a in at)} allowed)"
            )
        lines.append(line)
    smallest = min(r.tpr[RATES[0]].attacks for part in found.values() for r in part)
    low = [f"{rate:g}" for rate in RATES if rate * smallest < 1 - 1e-9]
    warning = (
        f" With {smallest} attacks in the smallest test set one attack is an FPR of {1 / smallest:.2g}: "
        f"FPR {', '.join(low)} is below its resolution, where no attack at all is allowed."
        if low
        else ""
    )
    return Table(
        "TPR in % at a fixed FPR",
        ["system", *(f"FPR ≤ {rate:g}" for rate in RATES)],
        lines,
        "The last operating point within the rate, chosen on the test set (an oracle operating point); no "
        "interpolation. Means over cells and seeds; counts are summed over them." + warning,
    )
