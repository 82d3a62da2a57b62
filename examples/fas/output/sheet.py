"""All figures of a study as a comma-separated file, one line a result; shares, not percent."""

import csv
from collections.abc import Sequence
from pathlib import Path

from fas.evaluation.report import At, evaluate
from fas.evaluation.results import Result
from fas.files import whole


def figures(result: Result) -> dict[str, object]:
    """Everything of one result, by the names of the columns."""
    r, cell = evaluate(result.dev, result.test), result.cell
    any_rate = next(iter(r.tpr.values()))
    line: dict[str, object] = {
        "protocol": cell.protocol, "sources": "".join(cell.sources), "targets": "".join(cell.targets),
        "missing": " ".join(cell.missing), "left_out": cell.left_out, "system": result.system, "seed": result.seed,
        "epoch": result.epoch, "development": r.counts["development"], "test_live": any_rate.live,
        "test_attack": any_rate.attacks, "hter": r.hter, "oracle_hter": r.oracle_hter, "auc": r.auc,
        "dev_auc": r.dev_auc,
    }  # fmt: skip
    for name, at in (("dev_eer", r.dev_eer), ("dev_bpcer1", r.dev_bpcer1), ("oracle", r.oracle)):
        line |= {f"{name}_{field}": getattr(at, field) for field in At._fields if field != "per_attack"}
    for rate, at_rate in r.tpr.items():
        line |= {f"tpr_at_{rate:g}": at_rate.tpr} | {
            f"tpr_at_{rate:g}_{field}": getattr(at_rate, field)
            for field in ("threshold", "live_accepted", "attacks_accepted", "attacks_allowed")
        }
    for kind, (share, accepted, presented) in r.dev_eer.per_attack.items():
        line |= {f"apcer[{kind}]": share, f"accepted[{kind}]": accepted, f"presented[{kind}]": presented}
    return line


def write_csv(path: Path | str, results: Sequence[Result]) -> Path:
    """Write one line a result; a kind of attack that a test set does not have is empty there. Whole or not at all."""
    if not results:
        raise ValueError("results: expected at least one, found none")
    lines = [figures(result) for result in results]
    with whole(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for line in lines for name in line)))
        writer.writeheader()
        writer.writerows(lines)
    return Path(path)
