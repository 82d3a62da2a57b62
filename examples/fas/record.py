"""The file that a finished training leaves behind: what it was made from, and the thresholds to decide with."""

import json
from pathlib import Path
from typing import Any

from .files import whole

NAME = "run.json"


def write_text(path: Path, text: str) -> None:
    """Save, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text)


def read(path: Path) -> dict[str, Any]:
    """What is in it."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"resume: expected {path} to hold the record of a finished training, found {error}; "
            "delete it, and --resume writes it again"
        ) from error


def check(path: Path, made: dict[str, Any]) -> None:
    """Refuse to take a training for finished that was made otherwise."""
    found = read(path)
    differ = [name for name in made if made[name] != found.get(name)]
    if differ:
        expected, there = ({name: of.get(name) for name in differ} for of in (made, found))
        raise ValueError(f"resume: expected {path} to hold {expected}, found {there}")
