"""Error rates of a presentation-attack detector (ISO/IEC 30107-3 and the habits of the field).

Live is the positive class and a higher score is more live; a sample is accepted where score ≥ threshold. Then

    FPR = APCER = accepted attacks / attacks        FNR = BPCER = rejected live / live
    ACER = (APCER + BPCER) / 2                      HTER = (FPR + FNR) / 2 at a threshold fixed elsewhere

APCER is given for each kind of attack, as their maximum, and pooled over all attacks. A threshold comes from
development data; the one from the test data is an oracle, and is labelled so (``report``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score, roc_curve

Array = np.ndarray


class Scored(NamedTuple):
    """What a system said of a set of samples."""

    scores: ArrayLike  # "b", higher is more live
    live: ArrayLike  # "b"
    kinds: Sequence[object]  # "b", names or codes, ignored for live samples
    identities: Sequence[int] | None = (
        None  # "b", the person; -1 where the source does not say, None where it never does
    )


class Roc(NamedTuple):
    """One operating point per distinct score, from accepting nothing to accepting all; tied scores move together."""

    threshold: Array  # falling, the first is +inf
    fpr: Array
    tpr: Array
    attacks_accepted: Array
    live_accepted: Array


class AtFpr(NamedTuple):
    """Share of live samples accepted while at most a given share of attacks is, with the counts behind it."""

    tpr: float
    threshold: float
    attacks_allowed: int  # ⌊rate · attacks⌋: at 0 the rate is below the resolution of the data
    attacks_accepted: int
    attacks: int
    live_accepted: int
    live: int


def checked(scores: ArrayLike, live: ArrayLike) -> tuple[Array, Array]:
    """The same as float64 "b" and bool "b"; raises unless there is a label a score, and both classes."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(live)
    if s.ndim != 1:
        raise ValueError(f"scores: expected one axis, one score a sample, found shape {s.shape}")
    if y.shape != s.shape:
        raise ValueError(f"live: expected one label a score, shape {s.shape}, found {y.shape}")
    if y.dtype != bool:
        if not np.isin(y, (0, 1)).all():
            raise ValueError(f"live: expected booleans, or 1 for live and 0 for attack, found {np.unique(y)[:5]}")
        y = y.astype(bool)
    if np.isnan(s).any():
        raise ValueError(f"scores: expected numbers, found {int(np.isnan(s).sum())} NaN of {len(s)}")
    if not y.any() or y.all():
        raise ValueError(f"live: expected live and attack samples, found {int(y.sum())} live of {len(y)}")
    return s, y


def _ranks(scores: ArrayLike, live: ArrayLike) -> tuple[Array, Array, Array]:
    """The distinct scores, rising; the place of each sample among them; live. Infinite scores have a rank too."""
    s, y = checked(scores, live)
    values, place = np.unique(s, return_inverse=True)
    return values, place, y


def roc(scores: ArrayLike, live: ArrayLike) -> Roc:
    """The receiver operating characteristic."""
    values, place, y = _ranks(scores, live)
    fpr, tpr, rank = roc_curve(y, place, drop_intermediate=False)
    attacks, genuine = (np.rint(rate * n).astype(int) for rate, n in ((fpr, (~y).sum()), (tpr, y.sum())))
    return Roc(np.r_[np.inf, values[rank[1:].astype(int)]], fpr, tpr, attacks, genuine)


def auc(scores: ArrayLike, live: ArrayLike) -> float:
    """P(a live sample scores higher than an attack) + ½ P(they tie): the area under :func:`roc`."""
    _, place, y = _ranks(scores, live)
    return float(roc_auc_score(y, place))


def eer_threshold(scores: ArrayLike, live: ArrayLike) -> float:
    """The threshold at which |FPR − FNR| is smallest; of equals, the lowest FPR + FNR, then the strictest."""
    r = roc(scores, live)
    gap, total = np.abs(r.fpr - (1 - r.tpr)), r.fpr + (1 - r.tpr)
    order = np.lexsort((np.arange(len(gap)), total.round(12), gap.round(12)))
    return float(r.threshold[order[0]])


def bpcer_threshold(scores: ArrayLike, live: ArrayLike, rate: float = 0.01) -> float:
    """The strictest threshold that still rejects at most `rate` of the live samples."""
    _share("rate", rate)
    r = roc(scores, live)
    total = int(r.live_accepted[-1])
    return float(r.threshold[np.argmax(total - r.live_accepted <= rate * total + 1e-9)])


def tpr_at_fpr(scores: ArrayLike, live: ArrayLike, rate: float) -> AtFpr:
    """The last operating point whose FPR is at most `rate`: no interpolation, no nearest point."""
    _share("rate", rate)
    r = roc(scores, live)
    attacks, total = int(r.attacks_accepted[-1]), int(r.live_accepted[-1])
    allowed = int(np.floor(rate * attacks + 1e-9))
    last = int(np.flatnonzero(r.attacks_accepted <= allowed)[-1])
    return AtFpr(
        float(r.tpr[last]), float(r.threshold[last]), allowed, int(r.attacks_accepted[last]), attacks,
        int(r.live_accepted[last]), total,
    )  # fmt: skip


def apcer(scores: ArrayLike, live: ArrayLike, threshold: float) -> float:
    """Share of all attacks that are accepted: pooled APCER, FPR."""
    s, y = checked(scores, live)
    return float((s[~y] >= threshold).mean())


def apcer_per_attack(scores: ArrayLike, live: ArrayLike, kinds: Sequence[object], threshold: float) -> dict:
    """Share of each kind of attack that is accepted, {kind: (share, accepted, presented)}."""
    s, y = checked(scores, live)
    names = np.asarray(kinds)
    if names.shape != s.shape:
        raise ValueError(f"kinds: expected one kind a score, shape {s.shape}, found {names.shape}")
    result = {}
    for name in np.unique(names[~y]).tolist():
        accepted = s[~y & (names == name)] >= threshold
        result[name] = (float(accepted.mean()), int(accepted.sum()), len(accepted))
    return result


def bpcer(scores: ArrayLike, live: ArrayLike, threshold: float) -> float:
    """Share of live samples that are rejected; also called NPCER or FNR."""
    s, y = checked(scores, live)
    return float((s[y] < threshold).mean())


def hter(scores: ArrayLike, live: ArrayLike, threshold: float) -> float:
    """(FPR + FNR)/2 at a threshold that was fixed on other data; ACER with pooled APCER is the same number."""
    return (apcer(scores, live, threshold) + bpcer(scores, live, threshold)) / 2


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a share in [0, 1], found {value}")
