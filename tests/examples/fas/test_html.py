"""The page holds everything it shows, says what the results say, and lets no text through as markup."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from fas.evaluation.metrics import Scored
from fas.evaluation.results import Result
from fas.output.html import Picture, Section, write_html
from fas.output.layout import Table
from fas.output.rates import attack_table, rates_table, reports, tpr_table
from fas.output.study import Exhibit, exhibit_section, glossary_section, results_sections
from fas.protocols import Cell
from fas.standin import make_split

DEV = Scored([0.0, 1.0], [0, 1], ["print", "live"], [0, 1])


def study():
    rows = []
    for protocol, missing in (("P1", ()), ("P2", ("depth",))):
        for seed in (0, 1):
            generator = np.random.default_rng(seed)
            live = np.arange(60) % 2 == 0
            kinds, base = (
                np.where(live, "live", np.where(np.arange(60) < 20, "print", "replay")),
                generator.normal(size=60),
            )
            for system, apart in (("ViT", 0.5), ("MMDG", 4.0), ("without <b>", 0.5)):
                test = Scored(1 + apart * (live - 0.5) + base, live, kinds.tolist(), np.arange(60) % 15)
                rows.append(Result(system, Cell(protocol, ("S",), ("W",), missing), seed, "last", DEV, test))
    return rows


class Balanced(HTMLParser):
    """Raises nothing, but remembers what is open."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def assert_self_contained(text):
    parser = Balanced()
    parser.feed(text.replace("<!DOCTYPE html>", ""))
    assert parser.open == [] and parser.wrong == []
    assert "<script" not in text and "http" not in text and "<link" not in text
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)', text))


def test_one_file_with_all_of_it(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"a picture")
    table = Table("T & T", ["x", "<y>"], [["1", "a<b"]], "n > 0")
    section = Section("A <i>", "one\n\ntwo & three", [table], [Picture(picture, 'say "cheese"')])
    path = write_html(tmp_path / "new" / "page.html", title="<t>", facts={"sign": "1 > 0"}, sections=[section])
    text = path.read_text(encoding="utf-8")
    assert_self_contained(text)
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    for words in ("&lt;t&gt;", "<dt>sign</dt><dd>1 &gt; 0</dd>", "A &lt;i&gt;", "<p>one</p><p>two &amp; three</p>",
                  "T &amp; T", "<td>a&lt;b</td>", "n &gt; 0", "say &quot;cheese&quot;"):  # fmt: skip
        assert words in text
    assert base64.b64encode(b"a picture").decode() in text


def test_the_sections_of_a_study(tmp_path):
    sections = results_sections(study(), baseline="ViT", full="MMDG", without=["without <b>", "never run"])
    assert [section.title for section in sections] == [
        "P1: results", "P1: what each part is worth", "P1: rates",
        "P2: results", "P2: what each part is worth", "P2: rates",
    ]  # fmt: skip
    assert "MMDG against ViT" in sections[0].text and "it falls" in sections[0].text
    assert sections[1].tables[0].rows[1][-1] == "helps"
    path = write_html(tmp_path / "a.html", title="t", facts={}, sections=[*sections, glossary_section()])
    text = path.read_text(encoding="utf-8")
    assert_self_contained(text)
    assert "without &lt;b&gt;" in text and "test EER (oracle)" in text and "D missing" in text


def test_rates_are_sums_and_means_of_the_reports():
    found = reports([r for r in study() if r.cell.protocol == "P1"])
    part = found["ViT"]
    rates = {(row[0], row[1]): row[2:] for row in rates_table(found).rows}
    assert rates["ViT", "development EER"][3] == f"{100 * np.mean([r.hter for r in part]):.1f}"
    assert rates["ViT", "test EER (oracle)"][3] == f"{100 * np.mean([r.oracle_hter for r in part]):.1f}"
    attacks = attack_table(found)
    accepted = sum(r.dev_eer.per_attack["print"][1] for r in part)
    assert attacks.rows[0][:2] == ["print", f"{100 * accepted / 20:.1f} ({accepted}/20)"]
    tpr = tpr_table(found)
    assert "0 of 0 allowed" in tpr.rows[0][1] and "one attack is an FPR of 0.033" in tpr.note
    assert "FPR 0.01, 0.001, 0.0001 is below" in tpr.note


def test_the_pictures_of_one_run(tmp_path):
    samples = make_split("W", "test", 16, seed=0)
    generator = np.random.default_rng(0)
    exhibit = Exhibit(
        "S→W, seed 0", samples, {"one": 0.5, "two": np.inf}, {"one": generator.random(16), "two": generator.random(16)},
        {"one": {"rgb": generator.random((16, 64))}}, {"one": {"rgb": [2.0, 1.0]}}, {"one": [0.5, 1.0]},
    )  # fmt: skip
    section = exhibit_section(exhibit, tmp_path / "pictures", shown="one")
    assert len(section.pictures) == 8 and all(p.path.stat().st_size > 1000 for p in section.pictures)
    bare = exhibit._replace(uncertainty={}, curves={}, conflicts={})
    assert len(exhibit_section(bare, tmp_path / "pictures", shown="two").pictures) == 5
    with pytest.raises(ValueError, match="shown: expected one of one, two, found 'three'"):
        exhibit_section(exhibit, tmp_path / "more", shown="three")
    assert not (tmp_path / "more").exists()
