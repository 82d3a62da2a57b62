"""What to report of a detector: thresholds from development data, every rate with its counts."""

from typing import NamedTuple

from .metrics import (
    AtFpr,
    Scored,
    apcer,
    apcer_per_attack,
    auc,
    bpcer,
    bpcer_threshold,
    eer_threshold,
    hter,
    tpr_at_fpr,
)

RATES = (1e-2, 1e-3, 1e-4)


class At(NamedTuple):
    """The rates at one threshold."""

    threshold: float
    apcer: float  # pooled
    apcer_max: float  # of the worst kind
    per_attack: dict  # {kind: (share, accepted, presented)}
    bpcer: float
    acer: float  # with pooled APCER; at a development threshold, HTER is the same number
    acer_max: float  # with the worst kind's APCER


class Report(NamedTuple):
    """A test set under three thresholds, and what needs none."""

    dev_eer: At
    dev_bpcer1: At  # the threshold that rejects 1 % of the live development samples
    oracle: At  # the test set's own EER: no threshold that anybody could have chosen
    hter: float  # at the development EER threshold
    oracle_hter: float  # at the test set's own EER threshold: what most papers of the field call HTER
    auc: float
    dev_auc: float
    tpr: dict[float, AtFpr]
    counts: dict[str, int]

    def __str__(self) -> str:
        """A table in percent."""
        head = "threshold".ljust(24) + "".join(t.rjust(11) for t in ("APCER", "max APCER", "BPCER", "ACER", "max ACER"))
        lines = [
            f"AUC {100 * self.auc:.1f} %   HTER {100 * self.hter:.1f} % (development EER threshold), "
            f"{100 * self.oracle_hter:.1f} % (oracle)   development AUC {100 * self.dev_auc:.1f} %",
            "rows: " + ", ".join(f"{name} {count}" for name, count in self.counts.items()),
            head,
        ]
        named = (
            ("development EER", self.dev_eer),
            ("development BPCER 1 %", self.dev_bpcer1),
            ("test EER (oracle)", self.oracle),
        )
        for name, at in named:
            rates = (at.apcer, at.apcer_max, at.bpcer, at.acer, at.acer_max)
            lines.append(name.ljust(24) + "".join(f"{100 * rate:10.1f}%" for rate in rates))
        kinds = (f"{kind} {100 * s:.1f} % ({a}/{n})" for kind, (s, a, n) in self.dev_eer.per_attack.items())
        lines.append("APCER at the development EER threshold: " + ", ".join(kinds))
        for rate, r in self.tpr.items():
            note = "" if r.attacks_allowed else "; below the resolution of these data"
            lines.append(
                f"TPR at FPR ≤ {rate:g}: {100 * r.tpr:.1f} % ({r.live_accepted}/{r.live} live, "
                f"{r.attacks_accepted} of {r.attacks_allowed} allowed attacks of {r.attacks}{note})"
            )
        return "\n".join(lines)


def rates_at(data: Scored, threshold: float) -> At:
    """All rates at `threshold`."""
    pooled, live = apcer(data.scores, data.live, threshold), bpcer(data.scores, data.live, threshold)
    kinds = apcer_per_attack(data.scores, data.live, data.kinds, threshold)
    worst = max(share for share, _, _ in kinds.values())
    return At(threshold, pooled, worst, kinds, live, (pooled + live) / 2, (worst + live) / 2)


def evaluate(dev: Scored, test: Scored) -> Report:
    """Thresholds from `dev` (and the oracle from `test`), rates on `test`."""
    fixed, own = eer_threshold(dev.scores, dev.live), eer_threshold(test.scores, test.live)
    tpr = {rate: tpr_at_fpr(test.scores, test.live, rate) for rate in RATES}
    any_rate = tpr[RATES[0]]
    return Report(
        dev_eer=rates_at(test, fixed),
        dev_bpcer1=rates_at(test, bpcer_threshold(dev.scores, dev.live, 0.01)),
        oracle=rates_at(test, own),
        hter=hter(test.scores, test.live, fixed),
        oracle_hter=hter(test.scores, test.live, own),
        auc=auc(test.scores, test.live),
        dev_auc=auc(dev.scores, dev.live),
        tpr=tpr,
        counts={"development": len(dev.kinds), "test live": any_rate.live, "test attack": any_rate.attacks},
    )
