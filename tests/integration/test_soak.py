"""The soak in small: counts of hooks, objects, tensors and graphs after a training, and after each wrapper is gone."""

import gc
from collections.abc import Callable, Iterator

import pytest

from balancekit import watch
from tests.reliability.soak import WRAPPERS, Census, Mark, Model, Training, census, portrait, subject


@pytest.fixture(autouse=True)
def _without_the_rest() -> Iterator[None]:
    """What other tests have loaded is neither counted nor collected again and again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def check(first: Census, last: Census, times: int) -> None:
    """Of what comes and goes by itself, less than one each time."""
    assert last._replace(objects=0) == first._replace(objects=0)
    assert last.objects - first.objects < times / 2


def test_a_training_leaves_nothing_behind() -> None:
    training = Training()
    training.run(30)
    first = census(*training.parts())
    training.run(170)
    check(first, census(*training.parts()), 170)
    assert first.graphs == 0


def test_no_graph_waits_for_the_collector_of_cycles() -> None:
    training = Training()
    gc.disable()
    try:
        with watch(training.ogm, training.balancer, optimizer=training.optimizer):
            for _ in range(21):  # numbers are due twice, and one evaluation is
                training.step()
                assert not Mark.alive
    finally:
        gc.enable()


def test_a_history_grows_by_one_number_a_series_when_numbers_are_due() -> None:
    training = Training()
    with watch(training.ogm, training.balancer, optimizer=training.optimizer, every=2) as history:
        for _ in range(5):
            training.step()
    assert len(history) > 20
    assert {tuple(steps) for steps, _ in history.values()} == {(0, 2, 4)}


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_that_is_gone_leaves_the_model_as_it_was(wrapper: Callable[[Model], None]) -> None:
    model = subject(wrapper)
    before = portrait(model)
    wrapper(model)
    first = census(model)
    for _ in range(50):
        wrapper(model)
    assert portrait(model) == before
    check(first, census(model), 50)
