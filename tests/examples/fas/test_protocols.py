"""The cells of the protocols, and which samples each one is made of."""

import pytest
import torch
from fas.protocols import LEFT_OUT, PROTOCOLS, AbsentKind, Cell, cells, gather, needed
from fas.samples import DOMAINS, KINDS, SPLITS, Samples, concatenate

ROLL = {  # the kinds of each part, one sample each
    "train": ["live", "print", "bent print", "replay", "live"],
    "dev": ["live", "print", "replay"],
    "test": ["live", "print", "bent print", "replay", "paper mask", "live"],
}


def part(domain: str, split: str) -> Samples:
    """A sample a kind; its identity tells where it is from."""
    kinds = torch.tensor([KINDS.index(kind) for kind in ROLL[split]])
    count = len(kinds)
    return Samples(
        *(torch.zeros(count, c, 2, 2, dtype=torch.uint8) for c in (3, 1, 1)),
        live=kinds == 0,
        kind=kinds,
        domain=torch.full((count,), DOMAINS.index(domain)),
        identity=torch.full((count,), 10 * DOMAINS.index(domain) + SPLITS.index(split)),
        failure=torch.zeros(count, 3, 8, 8, dtype=torch.uint8),
    )


def places(samples: Samples) -> list[str]:
    """Where the samples are from, in order."""
    seen = dict.fromkeys(samples.identity.tolist())
    return [f"{DOMAINS[code // 10]} {SPLITS[code % 10]}" for code in seen]


def test_leave_one_set_out():
    assert [cell.name for cell in cells("P1")] == ["CPS→W", "CPW→S", "CSW→P", "PSW→C"]
    for cell in cells("P1"):
        assert sorted(cell.sources + cell.targets) == sorted(DOMAINS) and not cell.missing and not cell.left_out


def test_missing_modalities():
    found = cells("P2")
    assert len(found) == 12 and [cell.name for cell in found[::3]] == [cell.name for cell in cells("P1")]
    assert [cell.missing for cell in found] == [("depth",), ("infrared",), ("depth", "infrared")] * 4


def test_limited_sources():
    assert [cell.name for cell in cells("P3")] == ["CW→PS", "PS→CW"]


def test_leave_one_attack_out():
    assert [cell.left_out for cell in cells("WMCA")] == list(LEFT_OUT) and len(LEFT_OUT) == 7
    assert {cell.name for cell in cells("WMCA")} == {"W→W"} and set(LEFT_OUT) < set(KINDS)


def test_flexible_modal():
    found = cells("flexible")
    assert [cell.name for cell in found] == ["SC→SC"] * 4 + ["SC→W"] * 4
    assert [cell.missing for cell in found[:4]] == [("depth", "infrared"), ("infrared",), ("depth",), ()]


def test_every_cell_has_its_own_place():
    every = [cell for protocol in PROTOCOLS for cell in cells(protocol)]
    assert len(set(every)) == len(every) == 4 + 12 + 2 + 7 + 8
    assert [cell.protocol for protocol in PROTOCOLS for cell in cells(protocol)] == [cell.protocol for cell in every]
    with pytest.raises(ValueError, match="protocol: expected one of P1, P2, P3, WMCA, flexible, found 'P4'"):
        cells("P4")


@pytest.mark.parametrize("cell", [*cells("P1"), *cells("P2"), *cells("P3"), *cells("flexible")[:4]])
def test_parts_are_put_together_in_order(cell):
    train, dev, test = gather(cell, part)
    assert places(train) == [f"{d} train" for d in cell.sources]
    assert places(dev) == [f"{d} dev" for d in cell.sources]
    assert places(test) == [f"{d} test" for d in cell.targets]
    assert torch.equal(test.kind, concatenate([part(d, "test") for d in cell.targets]).kind)


def test_flexible_modal_tests_on_all_lists_of_the_set_it_never_saw():
    cell = cells("flexible")[4]
    assert places(gather(cell, part)[2]) == ["W train", "W dev", "W test"]
    assert needed(cell) == ((("S", "train"), ("C", "train")), (("S", "dev"), ("C", "dev")),
                            (("W", "train"), ("W", "dev"), ("W", "test")))  # fmt: skip


def test_a_kind_left_out_is_seen_in_the_test_alone():
    cell = Cell("WMCA", ("W",), ("W",), left_out="replay")
    train, dev, test = gather(cell, part)
    assert train.kind_names == ["live", "print", "bent print", "live"] and dev.kind_names == ["live", "print"]
    assert test.kind_names == ["live", "replay", "live"]


def test_bent_prints_are_left_out_with_the_flat_ones():
    train, dev, test = gather(Cell("WMCA", ("W",), ("W",), left_out="print"), part)
    assert train.kind_names == ["live", "replay", "live"] and dev.kind_names == ["live", "replay"]
    assert test.kind_names == ["live", "print", "bent print", "live"]


def test_a_kind_that_training_never_shows_can_be_left_out():
    train, _, test = gather(Cell("WMCA", ("W",), ("W",), left_out="paper mask"), part)
    assert train.kind_names == ROLL["train"] and test.kind_names == ["live", "paper mask", "live"]


def test_a_kind_that_the_test_does_not_hold_is_an_error_of_its_own():
    asked = []
    with pytest.raises(AbsentKind, match="'fake head' in the test of W, found print, bent print, replay, paper mask"):
        gather(Cell("WMCA", ("W",), ("W",), left_out="fake head"), lambda d, s: asked.append((d, s)) or part(d, s))
    assert asked == [("W", "test")]
