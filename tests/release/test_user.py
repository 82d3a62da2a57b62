"""The program that a type checker reads (``tests/typed``) is true code, and leaves out no name of the top level."""

import re
from pathlib import Path

import torch

import balancekit
from tests.typed import user


def test_it_runs() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        user.main()


def test_it_has_every_name() -> None:
    used = re.findall(r"\bbk\.(\w+)", Path(user.__file__).read_text(encoding="utf-8"))
    assert set(used) == set(balancekit.__all__)
