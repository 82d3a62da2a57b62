"""Every fence of the documentation runs: python as it is, diffs applied, shell commands as dry runs."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *map(str, (ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r"^```(\w*|\{\w+\}.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STORY = "ten-minutes.md"  # its fences are one program


def fences(page: str) -> list[tuple[str, str]]:
    """Kind and text of each."""
    found = FENCE.findall((ROOT / page).read_text())
    if Path(page).name != STORY:
        return found
    program = "\n".join(text for kind, text in found if kind == "python")
    return [("python", program), *((kind, text) for kind, text in found if kind != "python")]


FENCES = [
    pytest.param(kind, text, id=f"{Path(page).name}-{number}-{kind}")
    for page in PAGES
    for number, (kind, text) in enumerate(fences(page))
]


class ThreeBranches(nn.Module):
    """What the diff of the README is applied to."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(5, 8) for name in ("rgb", "depth", "ir")})
        self.head = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([encoder(x) for encoder in self.encoders.values()], 1))


def run_diff(text: str) -> None:
    """Both sides of a diff are programs; the new one trains every parameter."""
    sides = {"before": " -", "after": " +"}
    for side, marks in sides.items():
        torch.manual_seed(0)
        model = ThreeBranches()
        before = [parameter.clone() for parameter in model.parameters()]
        names = {
            "model": model,
            "F": F,
            "num_classes": 3,
            "dim": 8,
            "loader": [(torch.randn(6, 5), torch.randint(0, 3, (6,))) for _ in range(3)],
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        }
        exec("\n".join(line[2:] for line in text.splitlines() if line[:1] in marks), names)
        assert all(not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)), side


@cache
def show_help(script: str) -> None:
    """A script imports what it needs and knows its arguments."""
    subprocess.run([sys.executable, script, "--help"], cwd=ROOT, check=True, capture_output=True)


def check_shell(text: str) -> None:
    """Targets exist, scripts understand --help, and packages are asked for as the Makefile does."""
    makefile = (ROOT / "Makefile").read_text()
    for line in text.splitlines():
        for command in line.split("#")[0].split("&&"):
            words = shlex.split(command)
            if words[:1] == ["make"]:
                subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
            elif words[:1] == ["python"] and words[1].endswith(".py"):
                show_help(words[1])
            elif words[:2] == ["torchrun", "--nproc-per-node"]:
                assert (ROOT / words[3]).exists()
            elif words[:2] == ["python", "-m"]:
                assert words[2] in ("venv", "pytest")
            elif words[:2] == ["pip", "install"]:
                assert all(word in makefile for word in words[2:] if word != "-c"), words
            else:
                assert words == [".", ".venv/bin/activate"], words


@pytest.mark.parametrize(("kind", "text"), FENCES)
def test_fence(kind: str, text: str) -> None:
    if kind == "python":
        exec(compile(text, "fence", "exec"), {"__name__": "fence"})
    elif kind == "diff":
        run_diff(text)
    elif kind == "bash":
        check_shell(text)
    else:
        assert kind == "text" or kind.startswith(("{toctree}", "{include}"))


def test_links_and_pictures_exist() -> None:
    for page in PAGES:
        prose = FENCE.sub("", (ROOT / page).read_text())
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            path = (ROOT / page).parent / target
            if path.parent.name == "reference":  # written when the documentation is built
                path = ROOT / "docs/rooms" / f"{path.name.replace('index', 'branches')}.md"
            assert target.startswith("http") or path.exists(), f"{page}: {target}"


def test_there_are_fences() -> None:
    assert {param.values[0] for param in FENCES} >= {"python", "diff", "bash"}
