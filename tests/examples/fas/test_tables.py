"""Tables say what the results say, and call a difference one only if its interval does."""

import csv

import numpy as np
import pytest
from fas.evaluation.intervals import interval, paired
from fas.evaluation.metrics import Scored, auc, hter
from fas.evaluation.report import evaluate
from fas.evaluation.results import Result
from fas.output.layout import Table, as_markdown, as_text
from fas.output.sheet import write_csv
from fas.output.tables import ablation_table, interval_table, main_table, relative_drop
from fas.protocols import Cell

DEV = Scored([0.0, 1.0], [0, 1], ["print", "live"], [0, 1])
P1 = [Cell("P1", tuple(d for d in "CPSW" if d != target), (target,)) for target in "WS"]
P2 = [cell._replace(protocol="P2", missing=gone) for cell in P1 for gone in (("depth",), ("depth", "infrared"))]


def study(cells=P1, systems=(("ViT", 0.4), ("late mean", 0.4), ("MMDG", 2.5)), seeds=(0, 1), epochs=("last",)):
    """Results whose systems differ by how far live and attack lie apart; "ViT" and "late mean" by chance only."""
    rows = []
    for cell in cells:
        for seed in seeds:
            shared = np.random.default_rng([seed, ord(cell.targets[0])])
            live, kinds = np.arange(80) % 2 == 0, ["live", "print", "live", "replay"] * 20
            base = shared.normal(size=80)
            for number, (system, apart) in enumerate(systems):
                for epoch in epochs:
                    noise = np.random.default_rng(
                        [seed, number, ord(cell.targets[0]), len(cell.missing), epochs.index(epoch)]
                    )
                    scores = 1 + apart * (live - 0.5) + base + 0.1 * noise.normal(size=80)
                    test = Scored(scores, live, kinds, np.arange(80) % 16)
                    rows.append(Result(system, cell, seed, epoch, DEV, test))
    return rows


def test_the_papers_layout():
    results = study(epochs=("last", "best"))
    table = main_table(results)
    assert list(table.columns) == ["system", "CPS→W", "CPW→S", "average"]
    assert [row[0] for row in table.rows] == ["ViT", "late mean", "MMDG"]
    values = [
        (100 * hter(r.test.scores, r.test.live, 1.0), 100 * auc(r.test.scores, r.test.live))
        for r in results
        if r.system == "ViT" and r.epoch == "last" and r.cell == P1[0]
    ]
    means, sds = np.mean(values, 0), np.std(values, 0, ddof=1)
    assert table.rows[0][1] == f"{means[0]:.1f} ± {sds[0]:.1f} / {means[1]:.1f} ± {sds[1]:.1f}"
    average = interval([r for r in results if r.system == "ViT" and r.epoch == "last"])
    assert table.rows[0][3].startswith(f"{100 * average.mean:.1f} ± {100 * average.sd:.1f} / ")
    best = main_table(results, epoch="best")
    assert best.rows != table.rows and "best on development data" in best.title
    assert "2 seeds" in table.note


def test_missing_modalities_are_means_over_the_targets():
    results = study(P2)
    table = main_table(results)
    assert list(table.columns) == ["system", "D missing", "D and I missing", "average"]
    part = [r for r in results if r.system == "MMDG" and r.cell.missing == ("depth",)]
    assert len({r.cell.targets for r in part}) == 2
    assert table.rows[2][1].startswith(f"{100 * interval(part).mean:.1f} ± ")


def test_one_seed_has_no_spread_and_what_is_not_measured_is_a_dash():
    results = [r for r in study(seeds=(0,)) if r.system != "ViT" or r.cell == P1[0]]
    table = main_table(results)
    assert "±" not in table.rows[0][1] and table.rows[0][2:] == ["–", "–"] and "–" not in table.rows[1]
    assert "1 seed." in table.note
    assert list(main_table(study(P1[:1])).columns) == ["system", "CPS→W"]  # nothing to average
    left = Cell("LOO", ("W",), ("W",), left_out="glasses")
    assert main_table(study([left])).columns[1] == "glasses"


def test_intervals_decide_the_words():
    results = study()
    table = interval_table(results, "ViT")
    of = {name: [r for r in results if r.system == name] for name in ("ViT", "late mean", "MMDG")}
    gap = paired(of["MMDG"], of["ViT"])
    assert gap.high < 0
    sign = {name: f"{100 * getattr(gap, name):+.1f}".replace("-", "−") for name in ("mean", "low", "high")}
    assert table.rows[2][5:] == [sign["mean"], f"{sign['low']} to {sign['high']}", "lower error"]
    assert table.rows[0][5:] == ["", "", ""]
    assert paired(of["late mean"], of["ViT"]).shows == 0 and table.rows[1][7] == "no difference shown"
    assert interval_table(results, "MMDG").rows[0][7] == "higher error"
    part = [r for r in results if r.system != "late mean" or r.cell == P1[0]]
    assert set(interval_table(part, "ViT").rows[1][1:]) == {"–"}  # no average to compare


def test_the_ablation_says_what_does_not_help():
    results = study()
    table = ablation_table(results, "MMDG", ["ViT"])
    assert [row[0] for row in table.rows] == ["MMDG", "ViT"] and table.rows[1][-1] == "helps"
    assert table.rows[1][2].startswith("+") and table.rows[1][5].startswith("−")
    assert ablation_table(results, "ViT", ["MMDG"]).rows[1][-1] == "hurts"
    assert ablation_table(results, "ViT", ["late mean"]).rows[1][-1] == "no difference shown"


def test_the_headline():
    found, line = relative_drop(study(), "ViT", "MMDG")
    means = {row[0]: row[1] for row in interval_table(study(), "ViT").rows}
    assert found.low > 0 and f"{means['ViT']} → {means['MMDG']} %" in line and line.endswith("it falls")
    assert f"−{100 * found.mean:.1f} % of it" in line
    assert relative_drop(study(), "ViT", "late mean")[1].endswith("no difference shown")
    assert relative_drop(study(), "MMDG", "ViT")[1].endswith("it rises")


def test_a_line_a_result(tmp_path):
    results = study()
    path = write_csv(tmp_path / "new" / "all.csv", results)
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(results) and [p.name for p in path.parent.iterdir()] == ["all.csv"]
    for line, result in zip(lines, results, strict=True):
        report = evaluate(result.dev, result.test)
        assert (line["system"], int(line["seed"]), line["targets"]) == (
            result.system, result.seed, result.cell.targets[0],
        )  # fmt: skip
        assert float(line["hter"]) == report.hter and float(line["oracle_hter"]) == report.oracle.acer
        assert float(line["oracle_threshold"]) == report.oracle.threshold
        assert float(line["apcer[print]"]) == report.dev_eer.per_attack["print"][0]
        assert int(line["presented[replay]"]) == 20 and int(line["test_live"]) == 40
        assert int(line["tpr_at_0.01_attacks_allowed"]) == 0
        assert float(line["dev_bpcer1_acer_max"]) == report.dev_bpcer1.acer_max


def test_text_and_markdown():
    table = Table("A|B", ["system", "x"], [["one", "1.0"], ["a|b", "10.0"]], "A note.")
    lines = as_text(table).splitlines()
    assert lines[0] == "A|B" and lines[2] == "system     x" and lines[4] == "one      1.0" and lines[-1] == "A note."
    assert as_markdown(table).splitlines()[2:6] == [
        "| system | x |",
        "| :-- | --: |",
        "| one | 1.0 |",
        "| a\\|b | 10.0 |",
    ]


def test_wrong_calls(tmp_path):
    with pytest.raises(ValueError, match="baseline: expected one of ViT, late mean, MMDG, found 'SSDG'"):
        interval_table(study(), "SSDG")
    with pytest.raises(ValueError, match="without: expected one of"):
        ablation_table(study(), "MMDG", ["SSDG"])
    with pytest.raises(ValueError, match="expected one protocol with the epoch 'last', found P1, P2"):
        main_table([*study(), *study(P2)])
    with pytest.raises(ValueError, match="expected one protocol with the epoch 'best', found none"):
        main_table(study(), epoch="best")
    with pytest.raises(ValueError, match="expected both systems in the same cells"):
        ablation_table([r for r in study() if r.system != "ViT" or r.cell == P1[0]], "MMDG", ["ViT"])
    with pytest.raises(ValueError, match="results: expected at least one"):
        write_csv(tmp_path / "a.csv", [])
    assert not list(tmp_path.iterdir())
