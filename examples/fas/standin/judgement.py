"""From figures of several seeds to criteria, met or not. Bounds are on means over seeds; on each seed for shortcuts."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fas.samples import MODALITIES

from .acceptance import FUSIONS, Figure

TITLES = {
    "shortcut": "area under the curve of a classifier that sees only this; at most .70 with every seed",
    "mark share": "share of corrupted tokens; .01 to .05",
    "mark label": "area under the curve of the number of corrupted tokens; .45 to .55",
    "a": "the fastest modality on the sources is not the most reliable on the target",
    "b": "concatenation is worse than the best single modality on at least one target",
    "c": "a late mean, or an oracle over the three scores, is better than concatenation",
    "d": "area under the curve of identity alone at the natural ratio; .45 to .55",
    "e": "area under the curve of concatenation within the domain; above .95",
    "f": "area under the curve of concatenation on a domain that was held out; .70 to .90",
}
BOUNDS = {"mark share": (0.01, 0.05), "mark label": (0.45, 0.55), "d": (0.45, 0.55), "e": (0.95, 1.0), "f": (0.7, 0.9)}


class Line(NamedTuple):
    """One criterion at one place."""

    criterion: str  # a key of TITLES
    where: str
    text: str  # with its figure
    met: bool


def judge(figures: Iterable[Figure]) -> list[Line]:
    """A line for each criterion and place, in the order of TITLES."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for figure in figures:
        values[figure[:3]].append(figure.value)
        if figure[0] == "target" and figure.name == FUSIONS[0]:
            values["f", figure.where, figure.name].append(figure.value)
    lines = []
    for (criterion, where, name), v in values.items():
        text = f"{name} {np.mean(v):.3f} (with each seed: {', '.join(f'{x:.3f}' for x in v)})"
        if criterion == "shortcut":
            lines.append(Line(criterion, where, text, max(v) <= 0.7))
        elif criterion in BOUNDS:
            low, high = BOUNDS[criterion]
            lines.append(Line(criterion, where, text, bool(low <= np.mean(v) <= high)))
    means = {key: float(np.mean(v)) for key, v in values.items()}
    targets = [where for criterion, where, name in values if criterion == "target" and name == FUSIONS[0]]
    lines += [line for target in targets for line in _speed_and_fusion(means, target)]
    if targets:
        margins = {t: _margin(means, t) for t in targets}
        worst = min(margins, key=margins.__getitem__)
        lines.append(Line("b", "any", f"the lowest margin is {margins[worst]:+.3f}, on {worst}", margins[worst] < 0))
    order = list(TITLES)
    return sorted(lines, key=lambda line: order.index(line.criterion))


def _margin(means: dict[tuple[str, str, str], float], target: str) -> float:
    """Concatenation less the best single modality."""
    return means["target", target, FUSIONS[0]] - max(means["target", target, m] for m in MODALITIES)


def _speed_and_fusion(means: dict[tuple[str, str, str], float], target: str) -> list[Line]:
    early = {m: means["early", target, m] for m in MODALITIES}
    late = {m: means["target", target, m] for m in MODALITIES}
    fastest, best = max(early, key=early.__getitem__), max(late, key=late.__getitem__)
    speeds = ", ".join(f"{m} {early[m]:.3f} then {late[m]:.3f}" for m in MODALITIES)
    joint, mean, oracle = (means["target", target, name] for name in FUSIONS)
    fusion = f"concatenation {joint:.3f}, late mean {mean:.3f}, oracle {oracle:.3f}"
    return [
        Line("a", target, f"{speeds}: fastest {fastest}, best {best}", fastest != best),
        Line("c", target, fusion, max(mean, oracle) > joint),
    ]
