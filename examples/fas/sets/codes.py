"""What a path of CASIA-SURF (S), CeFA (C) or WMCA (W) says: the kind of attack and the person. PADISI's say neither.

The codes are those of the published lists; the classes of WMCA are the ones of its leave-one-attack-out lists.
"""

import re
from pathlib import PurePosixPath
from typing import NamedTuple

_PLACES = {"S": r"CLKJ_\w+", "C": r"\d_\d+_[\d_]+", "W": r"\d+_\d+_\d+_\d+_\d+"}  # the folder that tells
_SURF = {"e": "cut eyes", "en": "cut eyes nose", "enm": "cut eyes nose mouth"}
_CEFA = {"3_1_2": "print", "3_2_2": "print", "3_1_4": "replay"}
_CEFA_MASKS = {"3D-Mask": "rigid mask", "Silicone-Mask": "silicone mask"}
WMCA_KINDS = {  # <type>_<pai>, the numbers as ranges
    "fake head": {2: [(1, 7)]},
    "paper mask": {2: [(8, 11)]},
    "rigid mask": {2: [(12, 17)], 1: [(2, 2), (13, 14)]},
    "silicone mask": {2: [(18, 18), (75, 99)]},  # flexible
    "glasses": {1: [(1, 1), (4, 7), (15, 16)]},
    "print": {3: [(1, 4), (6, 9), (11, 14)]},
    "replay": {3: [(5, 5), (10, 10), (15, 15)], 4: [(1, 18)]},
}


class Described(NamedTuple):
    """What is known of a row beside its label."""

    kind: str  # "attack" where the path does not say which
    subject: str  # "" where it does not say
    code: str  # of the attack in the data set's own terms; "" where there is none


def describe_path(name: str, layout: str, live: bool) -> Described:
    """What the path of a row's first image says; a path of another layout raises."""
    if layout == "P":
        return Described("live" if live else "attack", "", "")
    parts = PurePosixPath(name).parts
    at = next((i for i, part in enumerate(parts[:-1]) if re.fullmatch(_PLACES[layout], part)), None)
    if at is None:
        raise ValueError(f"expected a path of layout {layout}, with a folder like {_PLACES[layout]}, found {name!r}")
    kind, subject, code = {"S": _surf, "C": _cefa, "W": _wmca}[layout](parts, at)
    return Described("live" if live else kind or "attack", subject, code)


def _surf(parts: tuple[str, ...], at: int) -> tuple[str | None, str, str]:
    code = parts[at + 1].removesuffix(".rssdk")
    kind = _SURF.get(code.split("_")[1]) if re.fullmatch(r"\d\d_\w+_[sb]", code) else None
    return kind, parts[at], code


def _cefa(parts: tuple[str, ...], at: int) -> tuple[str | None, str, str]:
    race, person, *numbers = parts[at].split("_")
    code = "_".join(numbers)
    subject = parts[at - 1] if re.fullmatch(r"[A-Z]{2}-\d+", parts[at - 1]) else f"{race}-{person}"
    return next((_CEFA_MASKS[part] for part in parts if part in _CEFA_MASKS), _CEFA.get(code)), subject, code


def _wmca(parts: tuple[str, ...], at: int) -> tuple[str | None, str, str]:
    client, _, _, type_, pai = parts[at].split("_")
    listed = (
        kind
        for kind, types in WMCA_KINDS.items()
        if any(low <= int(pai) <= high for low, high in types.get(int(type_), []))
    )
    return next(listed, None), client, f"{type_}_{pai}"
