"""Each figure is a picture file with something on it, drawn without any global state of matplotlib."""

import sys

import numpy as np
import pytest
from fas.output.pictures import (
    draw_conflicts,
    draw_contact_sheet,
    draw_convergence,
    draw_det,
    draw_roc,
    draw_scores,
    draw_scores_by_kind,
    draw_uncertainty,
    draw_worst,
)
from fas.output.style import style
from fas.standin import make_split
from PIL import Image

SCORES, LIVE = np.linspace(0, 1, 40), np.arange(40) % 3 > 0


def assert_drawn(path):
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L"))
    assert grey.shape[0] > 100 and grey.shape[1] > 100 and len(np.unique(grey)) > 20


def test_every_picture_is_drawn(tmp_path):
    samples = make_split("W", "test", 24, seed=0)
    curves = {"sum": {"rgb": [1.0, 0.5], "depth": [1.0, 0.2]}, "regrad": {"rgb": [1.0, 0.4], "depth": [1.0, 0.3]}}
    doubt = {name: np.random.default_rng(0).random((24, 64)) for name in ("rgb", "depth", "infrared")}
    for path in (
        draw_convergence(curves, tmp_path / "new" / "a.png"),
        draw_roc({"one": (SCORES, LIVE), "two": (1 - SCORES, LIVE)}, tmp_path / "b.png"),
        draw_scores(SCORES, LIVE, 0.4, tmp_path / "c.png"),
        draw_scores(SCORES, LIVE, np.inf, tmp_path / "d.png"),
        draw_contact_sheet(samples, tmp_path / "e.png", each=3),
        draw_uncertainty(samples, doubt, tmp_path / "f.png"),
        draw_det({"one": (SCORES, LIVE), "two": (1 - SCORES, LIVE)}, tmp_path / "g.png"),
        draw_scores_by_kind(SCORES, LIVE, np.where(LIVE, "live", "print"), 0.4, tmp_path / "h.png"),
        draw_scores_by_kind(np.arange(24), samples.live.numpy(), samples.kind_names, np.inf, tmp_path / "i.png"),
        draw_conflicts({"sum": np.arange(90) % 3 / 2, "regrad": [1.0, 0.0]}, tmp_path / "j.png"),
        draw_worst(samples, 1 - samples.live.float().numpy(), 0.5, tmp_path / "k.png"),
        draw_worst(samples, samples.live.float().numpy(), 0.5, tmp_path / "l.png"),
        draw_worst(samples, samples.live.float().numpy(), np.inf, tmp_path / "m.png", count=2),
    ):
        assert_drawn(path)
    assert "matplotlib.pyplot" not in sys.modules or sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_wrong_calls(tmp_path):
    samples = make_split("W", "test", 4, seed=0)
    with pytest.raises(ValueError, match=r"uncertainty\['rgb'\]: expected a modality and 64 tokens"):
        draw_uncertainty(samples, {"rgb": np.zeros((4, 9))}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="live: expected one label a score"):
        draw_scores(SCORES, LIVE[1:], 0.5, tmp_path / "b.png")
    for draw, word in (
        (draw_convergence, "curves"),
        (draw_roc, "systems"),
        (draw_det, "systems"),
        (draw_conflicts, "conflicts"),
    ):
        with pytest.raises(ValueError, match=f"{word}: expected at least one system"):
            draw({}, tmp_path / "c.png")
    with pytest.raises(ValueError, match="kinds: expected one a score"):
        draw_scores_by_kind(SCORES, LIVE, ["print"], 0.5, tmp_path / "d.png")
    with pytest.raises(ValueError, match="live: expected attack samples"):
        draw_scores_by_kind(SCORES, LIVE | True, ["live"] * 40, 0.5, tmp_path / "d.png")
    with pytest.raises(ValueError, match="scores: expected one a sample"):
        draw_worst(samples, [0.5], 0.5, tmp_path / "e.png")
    assert not list(tmp_path.iterdir())


def test_as_many_lines_as_systems_can_be_told_apart() -> None:
    looks = [tuple(map(str, style(number).values())) for number in range(14)]
    assert len(set(looks)) == 14
