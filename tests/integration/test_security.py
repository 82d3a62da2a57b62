"""What others wrote runs no code, leaves no folder, fills no memory, and is no markup or formula where it is shown.

Lists, images, arrays, checkpoints and the names of files come from elsewhere. The first test reads all Python of the
repository; the others hand over what an attacker would.
"""

import ast
import csv
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from fas import samples, scores, scoring
from fas.backbones import SMALL
from fas.evaluation.metrics import Scored
from fas.evaluation.results import Result
from fas.output.html import Picture, Section, write_html
from fas.output.layout import Table
from fas.output.study import results_sections
from fas.plan import Unit
from fas.protocols import Cell
from fas.record import NAME
from fas.sets import images
from fas.sets.layouts import write_layout
from fas.sets.lists import overlap, read_list
from fas.sets.opened import open_list
from fas.standin import make_split
from fas.study import SENSORS
from fas.systems import ABLATION, SYSTEMS, Setup
from fas.training import Options, fit
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("balancekit", "benchmarks", "docs", "examples", "tests")

# ------------------------------------------------------------------------------------- what no line of ours may say

NEVER = {
    "eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
    "marshal.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "shelve.open",
    "pandas.read_pickle", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp",
    "shutil.unpack_archive", "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.hub.download_url_to_file",
    "urllib.request.urlopen", "urllib.request.urlretrieve", "huggingface_hub.hf_hub_download",
    "huggingface_hub.snapshot_download",
}  # fmt: skip
NEVER_OF = {"extractall", "extract"}  # of whatever object: an archive may name files outside the folder
NET = {"requests", "httpx", "aiohttp", "http", "ftplib", "wget", "gdown"}
MUST_SAY = {
    "torch.load": ("weights_only", True),
    "timm.models.load_state_dict": ("weights_only", True),
    "transformers.utils.cached_file": ("local_files_only", True),
}
MAY_NOT_SAY = {"shell", "trust_remote_code", "pretrained"}
LOADERS = {"numpy.load", "numpy.lib.format.read_array"}  # of those that take allow_pickle: to write objects is harmless
MARKS = {name.rpartition(".")[2] for name in (*NEVER, *MUST_SAY)} | NEVER_OF | NET | MAY_NOT_SAY  # from_pretrained too
EXCEPT = {
    ("tests/docs/test_fences.py", "exec"): "the fences of our own pages",
    ("tests/unit/test_branches.py", "torch.load"): "a whole model, which the test has just saved",
    ("tests/integration/test_threads_and_pickling.py", "torch.load"): "as above",
    ("tests/examples/fas/test_backbones.py", "transformers.ViTForImageClassification.from_pretrained"): "as above",
    ("tests/examples/test_bring_your_own.py", "numpy.load"): "a file that the test has just written",
    ("tests/integration/test_security.py", "torch.load"): "the proof that the trap works",
}


def dangers(source: str) -> Iterator[tuple[str, int]]:
    """What is called, or imported, that it should not be; and in which line."""
    if not any(mark in source for mark in MARKS):
        return  # parsing takes time
    nodes, meaning = list(ast.walk(ast.parse(source))), {}
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.asname) for alias in node.names]
            meaning |= {
                short or name.partition(".")[0]: name if short else name.partition(".")[0] for name, short in names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
            meaning |= {short: name for name, short in names}
        else:
            continue
        yield from ((name, node.lineno) for name, _ in names if name.partition(".")[0] in NET)
    calls = [(called(node, meaning), node) for node in nodes if isinstance(node, ast.Call)]
    digests = [node.lineno for name, node in calls if name == "hashlib.sha256"]
    functions = [(node.lineno, node.end_lineno) for node in nodes if isinstance(node, ast.FunctionDef)]
    for name, node in calls:
        last, line, first = name.rpartition(".")[2], node.lineno, node.args[0] if node.args else None
        said = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else ... for k in node.keywords}
        own = isinstance(first, ast.Call) and called(first, meaning) == "pickle.dumps"
        empty = isinstance(first, ast.Constant) and first.value is None
        checked = any(start < digest < line <= end for start, end in functions for digest in digests)
        must, so = MUST_SAY.get(name, (None, None))
        if (
            (name in NEVER and not own)
            or (last in NEVER_OF and "." in name)
            or (must is not None and said.get(must) is not so)
            or (last == "from_pretrained" and not empty and said.get("local_files_only") is not True)
            or (name in LOADERS and said.get("allow_pickle") in (True, ...) and not checked)
            or any(said.get(word) in (True, ...) for word in MAY_NOT_SAY)
        ):
            yield name, line


def called(node: ast.Call, meaning: dict[str, str]) -> str:
    """The dotted name of what is called, by the name under which its module was imported."""
    parts, at = [], node.func
    while isinstance(at, ast.Attribute):
        parts.append(at.attr)
        at = at.value
    first = meaning.get(at.id, at.id) if isinstance(at, ast.Name) else "_"
    return ".".join([first, *reversed(parts)])


def test_no_line_of_the_repository_runs_what_others_wrote() -> None:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") if "_build" not in file.parts]
    assert len(files) > 300
    found = {
        (str(file.relative_to(ROOT)), name): line for file in files for name, line in dangers(file.read_text("utf-8"))
    }
    unknown = [f"{path}:{line}: {name}" for (path, name), line in found.items() if (path, name) not in EXCEPT]
    assert not unknown
    assert set(EXCEPT) <= set(found)  # nothing is excepted that is not there any more


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(f)", "import torch as t; t.load(f, weights_only=False)",
        "import torch; torch.load(f, weights_only=flag)", "from torch import load; load(f)",
        "import pickle; pickle.load(f)", "from pickle import loads as l; l(f)", "import pickle; pickle.Unpickler(f)",
        "import numpy as np; np.load(f, allow_pickle=True)", "import numpy as np; np.load(f, allow_pickle=flag)",
        "def g(f):\n  import numpy as np, hashlib\n  np.load(f, allow_pickle=True)\n  hashlib.sha256(f)",
        "eval(text)", "exec(text)", "import os; os.system(text)", "import subprocess as s; s.run(text, shell=True)",
        "import yaml; yaml.load(text)", "import tarfile; tarfile.open(f).extractall()",
        "import zipfile; zipfile.ZipFile(f).extract(name)", "import urllib.request; urllib.request.urlopen(url)",
        "import requests", "from http.client import HTTPConnection",
        "import timm; timm.create_model(name, pretrained=True)", "Model.from_pretrained(name)",
        "from transformers.utils import cached_file; cached_file(name)",
    ],
)  # fmt: skip
def test_such_a_line_would_be_found(line: str) -> None:
    assert list(dangers(line))


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(f, weights_only=True)", "import pickle; pickle.loads(pickle.dumps(model))",
        "import numpy as np; np.load(f)", "model.eval()", "import subprocess; subprocess.run([a, b])",
        "def g(f):\n  import numpy as np, hashlib\n  assert hashlib.sha256(f) == x\n  np.load(f, allow_pickle=True)",
        "import yaml; yaml.safe_load(text)", "Model.from_pretrained(None, config=config)", "text.extract",
    ],
)  # fmt: skip
def test_a_harmless_line_is_left_alone(line: str) -> None:
    assert not list(dangers(line))


# ---------------------------------------------------------------------------------------------------- code in files


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture(params=["of torch.save", "a bare pickle"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A checkpoint with a trap, which must not have gone off afterwards, though it could."""
    file, sprung, content = tmp_path / "checkpoint.pt", tmp_path / "sprung", {"run": "", "system": {}}
    content["best"] = Trap(sprung)
    if request.param == "of torch.save":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    yield file
    assert not sprung.exists()
    if request.param == "of torch.save":
        torch.load(file, weights_only=False)
        assert sprung.exists()


@pytest.fixture(scope="module")
def few() -> samples.Samples:
    return make_split("W", "test", 4, seed=0)


def test_no_checkpoint_runs_code_when_a_training_goes_on(checkpoint: Path, few: samples.Samples) -> None:
    setup = Setup(SMALL, SENSORS, 1)
    with pytest.raises(ValueError, match="Weights only load failed"):
        fit(lambda: SYSTEMS["ViT"](setup), few, few, Options(batch=2), checkpoint=checkpoint, resume=True)


def test_no_checkpoint_runs_code_when_a_folder_is_scored(checkpoint: Path) -> None:
    record = {"system": "ViT", "backbone": "small", "weights": None, "domains": 1, "options": {"infrared": ["grey"]}}
    checkpoint.with_name(NAME).write_text(json.dumps(record))
    with pytest.raises(ValueError, match="Weights only load failed"):
        scoring.load_run(checkpoint.parent, "last", "cpu")


def truth_of_a_list(file: Path, few: samples.Samples) -> None:
    path = write_layout(few, file.parent, "W")
    file.replace(path.with_name("truth-train.npz"))
    open_list(path, file.parent, "W")


def scores_of_a_study(file: Path, few: samples.Samples) -> None:
    cell = Cell("P1", ("S",), ("W",))
    unit = Unit("ViT", 0, (cell,))
    unit.folder(file.parent).mkdir(parents=True)
    file.replace(unit.scores(cell, file.parent))
    list(scores.load(unit, cell, file.parent))


@pytest.mark.parametrize(
    "read",
    [lambda file, few: samples.load(file), truth_of_a_list, scores_of_a_study],
    ids=["samples", "truth", "scores"],
)
def test_no_array_runs_code(
    read: Callable[[Path, samples.Samples], object], few: samples.Samples, tmp_path: Path
) -> None:
    sprung, names = tmp_path / "sprung", ("rgb", "kind", "last dev")
    np.savez(tmp_path / "a.npz", **{name: np.array([Trap(sprung)], dtype=object) for name in names})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read(tmp_path / "a.npz", few)
    assert not sprung.exists()


# ------------------------------------------------------------------------------------------------------------ lists


FOLDER = "R/001_01_000_2_12"
SECRET = "secret.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one good image, and a secret beside it."""
    root = tmp_path / "root"
    (root / FOLDER).mkdir(parents=True)
    for path in (root / FOLDER / "good.png", tmp_path / SECRET):
        Image.new("RGB", (8, 8), (90, 90, 90)).save(path)
    return root


def a_list(root: Path, *names: str) -> Path:
    """Of attacks; the three images of a row are one file."""
    path = root / "list.txt"
    path.write_text("".join(f"{name} {name} {name} 0\n" for name in names), newline="")
    return path


GOOD = f"{FOLDER}/good.png"


@pytest.mark.parametrize(
    "name",
    [
        "{outside}/secret.png", "../secret.png", f"{FOLDER}/../../../secret.png", f"{FOLDER}\\..\\..\\..\\secret.png",
        "//{outside}/secret.png", "\\\\host\\share\\secret.png", "C:/secret.png", "c:secret.png", "/proc/self/environ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["W", "P"])
def test_a_name_that_leaves_the_root_is_refused_by_list_and_line(root: Path, name: str, layout: str) -> None:
    name = name.replace("{outside}", str(root.parent))
    path = a_list(root, GOOD, name)
    if layout == "P":
        path.write_text(f"{name}\t1\n")
    line = 2 if layout == "W" else 1
    with pytest.raises(ValueError, match=rf"list\.txt:{line}: expected a path below the root, found '"):
        read_list(path, root, layout)


@pytest.mark.parametrize(
    "name",
    [f"{FOLDER}/%2e%2e/%2e%2e/%2e%2e/secret.png", f"~/{FOLDER}/x.png", f"file:///{FOLDER}/x.png", f"{FOLDER}/a\0.png",
     f"{FOLDER}/{'a' * 5000}.png", f"{'b/' * 5000}{FOLDER}/x.png", f"{FOLDER}/*.png", f"$HOME/{FOLDER}/x.png"],
)  # fmt: skip
def test_a_name_that_no_file_has_is_skipped(root: Path, name: str) -> None:
    """It is taken for what it says: nothing is expanded or decoded."""
    records, report = read_list(a_list(root, GOOD, name), root, "W")
    assert [record.line for record in records] == [1]
    assert len(report.missing) == 1
    assert "list.txt:2: expected a file" in report.missing[0]
    assert len(str(report)) < 4000


def test_a_link_below_the_root_is_followed(root: Path) -> None:
    """A list cannot make one. Whoever keeps images on another disk does."""
    (root / FOLDER / "link.png").symlink_to(root.parent / SECRET)
    (root / FOLDER / "loop.png").symlink_to(root / FOLDER / "loop.png")
    records, report = read_list(a_list(root, f"{FOLDER}/link.png", f"{FOLDER}/loop.png"), root, "W")
    assert [record.line for record in records] == [1]
    assert len(report.missing) == 1


def test_a_line_without_end_is_refused_in_a_few_words(root: Path) -> None:
    path = root / "list.txt"
    path.write_text("a" * 3_000_000)
    with pytest.raises(ValueError, match=r"list\.txt:1: expected a row") as error:
        read_list(path, root, "W")
    assert len(str(error.value)) < 1000


def test_what_a_terminal_would_obey_is_not_printed(root: Path) -> None:
    """Of names in a list: an escape sequence may rename the window, or hide the lines above."""
    wild = f"{FOLDER}/\x1b]0;renamed\x07\x9b2J\u202e.png"
    surf = wild.replace(FOLDER, "CLKJ_1/01_e\x1b[2Js_s.rssdk")
    told = [str(read_list(a_list(root, name), root, layout)[1]) for name, layout in ((wild, "W"), (surf, "S"))]
    path = a_list(root, wild)
    told.append(overlap({"one": path, "other": path}, "W"))
    with pytest.raises(ValueError, match="expected images below") as error:
        open_list(path, root, "W")
    for text in (*told, str(error.value)):
        assert all(line.isprintable() for line in text.split("\n"))
        assert "\\x1b" in text


# ------------------------------------------------------------------------------------------------------------ bombs


def png(side: int) -> bytes:
    """A small file that says it holds a large grey image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [6_000, 12_000, 60_000])  # below pillow's limits, where it warns, where it raises
def test_an_image_that_would_fill_the_memory_is_skipped(root: Path, side: int) -> None:
    (root / FOLDER / "bomb.png").write_bytes(png(side))
    records, _ = read_list(a_list(root, GOOD, f"{FOLDER}/bomb.png"), root, "W")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        loaded = images.load_records(records)
    assert loaded.rows == [0]
    assert "list.txt:2: expected a readable image" in loaded.unreadable[0]
    assert "pixels" in loaded.unreadable[0]


def array_of_objects(file: Path) -> None:
    np.savez(file, data=np.array([Trap(file.with_name("sprung"))], dtype=object))


def no_archive(file: Path) -> None:
    with file.open("wb") as opened:
        np.save(opened, np.zeros(3))


def claims_much(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive, archive.open("data.npy", "w") as opened:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1, 5, 10**7, 10**7)}
        np.lib.format.write_array_header_1_0(opened, header)


def holds_much(file: Path) -> None:
    np.savez_compressed(file, data=np.zeros((1, 5, 200, 200), np.float32))


def locked(file: Path) -> None:
    np.savez(file, data=np.zeros((1, 5, 8, 8), np.float32))
    content = file.read_bytes()
    at = content.rindex(b"PK\x01\x02")  # in the directory: flags, then the method
    file.write_bytes(content[: at + 8] + b"\x01\x00" + content[at + 10 :])


def packed_otherwise(file: Path) -> None:
    np.savez(file, data=np.zeros((1, 5, 8, 8), np.float32))
    content = file.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    file.write_bytes(content[: at + 10] + b"\x63\x00" + content[at + 12 :])


@pytest.mark.parametrize("bad", [array_of_objects, no_archive, claims_much, holds_much, locked, packed_otherwise])
def test_an_array_that_is_none_or_too_large_is_skipped(
    bad: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_BYTES", 10_000)
    np.savez(tmp_path / "good.npz", data=np.zeros((1, 5, 8, 8), np.float32))
    bad(tmp_path / "bad.npz")
    (tmp_path / "list.txt").write_text("good.npz\t1\nbad.npz\t0\n")
    loaded = images.load_records(read_list(tmp_path / "list.txt", tmp_path, "P")[0])
    assert loaded.rows == [0]
    assert "list.txt:2: expected a readable image" in loaded.unreadable[0]
    assert not (tmp_path / "sprung").exists()


# ------------------------------------------------------------------------------------------------- pages and sheets


HOSTILE = """"'></td></title></style><script>alert(1)</script><img src=x onerror='alert(1)'>&lt;b&gt;"""


class Tags(HTMLParser):
    """All tags with their attributes, and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple((name, value) for name, value in attrs if name not in ("src", "alt"))))
        self.text += [value for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page(word: str, folder: Path) -> Tags:
    """A page with this word in every place."""
    picture = folder / "a.png"
    picture.write_bytes(b"a picture")
    test = Scored([0.1, 0.9], [0, 1], [word, "live"], [0, 1])
    result = Result(word, Cell(word, (word,), (word,), (), word), 0, "last", test, test)
    table = Table(word, [word, word], [[word, word]], word)
    sections = [
        Section(word, word, [table], [Picture(picture, word)]),
        *results_sections([result], baseline="none", full="none"),
    ]
    file = write_html(folder / "page.html", title=word, facts={word: word}, sections=sections)
    found = Tags()
    found.feed(file.read_text("utf-8"))
    return found


def test_no_word_is_markup_in_a_page(tmp_path: Path) -> None:
    hostile, plain = page(HOSTILE, tmp_path), page("word", tmp_path)
    assert hostile.tags == plain.tags
    assert "".join(hostile.text).count(HOSTILE) == "".join(plain.text).count("word") > 10


@pytest.mark.parametrize("stem", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1"])
def test_no_name_of_a_file_is_a_formula_in_a_sheet(stem: str, tmp_path: Path) -> None:
    scoring.write([(stem, -0.5, "live", ""), ("face", -0.5, "live", "")], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    assert names[0][0] not in "=+-@\t\r"
    assert names[0].endswith(stem)
    assert names[1] == "face"


def test_no_name_of_a_system_is_a_formula() -> None:
    assert not [name for name in (*SYSTEMS, *ABLATION) if name[0] in "=+-@\t\r"]
