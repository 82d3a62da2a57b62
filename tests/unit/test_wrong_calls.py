"""Every wrong call is an error that names the argument, what was expected and what was found, and changes nothing."""

import importlib
import pkgutil

import pytest
import torch

from tests.unit import wrong_calls
from tests.unit.wrong_calls import Case

CASES = [
    pytest.param(case, id=f"{module.name}-{case.name}")
    for module in pkgutil.iter_modules(wrong_calls.__path__)
    for case in importlib.import_module(f"{wrong_calls.__name__}.{module.name}").CASES
]


def snapshot(case: Case) -> list[dict[str, torch.Tensor]]:
    return [{key: value.clone() for key, value in module.state_dict().items()} for module in case.watched]


@pytest.mark.parametrize("case", CASES)
def test_wrong_call(case: Case) -> None:
    before = snapshot(case)
    with pytest.raises(case.error) as caught:
        case.call()
    assert type(caught.value) is case.error
    message = str(caught.value)
    for word in case.words:
        assert word in message
    assert "expected" in message
    assert "found" in message
    for old, new in zip(before, snapshot(case), strict=True):
        assert old.keys() == new.keys()
        for key, value in old.items():
            assert torch.equal(value, new[key]), key


def test_there_are_at_least_sixty() -> None:
    assert len(CASES) >= 60
