"""What stands around the package agrees with the package."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import balancekit

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))  # config.yml is no form


def read(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def commands(target: str) -> str:
    """What make would run."""
    return subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_lower_bounds_are_those_of_the_dependencies() -> None:
    bounds = {each.name: each.specifier for each in map(Requirement, PYPROJECT["project"]["dependencies"])}
    pinned = {each.name: each.specifier for each in map(Requirement, PYPROJECT["dependency-groups"]["lower-bounds"])}
    assert pinned.keys() == bounds.keys()
    for name, (pin,) in pinned.items():
        (bound,) = bounds[name]
        assert (pin.operator, bound.operator) == ("==", ">=")
        assert SpecifierSet(f"=={bound.version}").contains(pin.version), name


def test_citation_names_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == balancekit.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["abstract"] == PYPROJECT["project"]["description"]


def test_hooks_are_the_style_part_of_make_check() -> None:
    (repo,) = read(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    entries = [hook["entry"].removesuffix(" --force-exclude") for hook in repo["hooks"]]
    style = re.findall(r"\S+/ruff .*", commands("check"))
    assert [each.partition("/bin/")[2] for each in entries] == [each.partition("/bin/")[2] for each in style]


def test_the_workflow_is_the_script_on_the_lowest_python() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    lowest, *_ = job["strategy"]["matrix"]["python"]
    assert PYPROJECT["project"]["requires-python"] == f">={lowest}"


def test_a_release_is_built_and_tried_before_it_is_published() -> None:
    jobs = read(".github/workflows/release.yml")["jobs"]
    assert "make release-test" in [step.get("run") for step in jobs["build"]["steps"]]
    assert jobs["publish"]["needs"] == "build"
    tried = re.findall(r"tests/bare_wheel\.py dist/\*(\S+)", commands("release-test"))
    assert sorted(tried) == [".tar.gz", ".tar.gz", ".whl", ".whl"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_what_github_reads(path: Path) -> None:
    form = read(path)
    assert form["name"]
    assert form["description"]
    kinds = {element["type"] for element in form["body"]}
    assert kinds <= {"markdown", "input", "textarea", "dropdown", "checkboxes"}
    assert all(element["attributes"]["label"] for element in form["body"])
    ids = [element["id"] for element in form["body"]]
    assert len(set(ids)) == len(ids)
    assert any(element.get("validations", {}).get("required") for element in form["body"])


def test_a_method_can_be_asked_for_in_rooms_that_there_are() -> None:
    (room,) = [element for element in read(".github/ISSUE_TEMPLATE/method.yml")["body"] if element["id"] == "room"]
    *names, unsure = room["attributes"]["options"]
    assert unsure == "I do not know"
    assert all((ROOT / "balancekit" / name).is_dir() or (ROOT / f"balancekit/{name}.py").is_file() for name in names)


def test_there_are_three_forms() -> None:
    assert [path.stem for path in FORMS] == ["bug", "method", "question"]
