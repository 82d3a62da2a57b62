"""Every example in a docstring of the library runs, and every room has some."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import balancekit

MODULES = [module.name for module in pkgutil.walk_packages(balancekit.__path__, "balancekit.")]
ROOMS = (
    "adapters", "branches", "diagnostics", "domains", "losses", "modulation", "plotting", "prototypes", "sampling",
    "schedules", "surgery", "testing", "uncertainty",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str) -> None:
    with torch.random.fork_rng([]):
        assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_examples(room: str) -> None:
    inside = [name for name in MODULES if name.split(".")[1] == room]
    finder = doctest.DocTestFinder()
    assert any(test.examples for name in inside for test in finder.find(importlib.import_module(name)))
