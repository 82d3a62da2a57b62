"""Freezing all but the adapters, the table of what trains, and the adapters' state alone."""

import copy
import doctest
import hashlib
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from balancekit.adapters import (
    CrossModal,
    GatedCrossAttention,
    Parallel,
    Tap,
    Trainable,
    adapter_state,
    hub,
    load_adapter_state,
    train_only,
    trainable_table,
)
from balancekit.adapters import _state as state_file
from balancekit.adapters import _trainable as trainable_file
from balancekit.adapters._trainable import Row

NAMES = ("rgb", "depth")
ROOT = Path(__file__).parents[2]


def confidence(attention: tuple[Tensor, ...]) -> Tensor:
    return torch.exp(-attention[0].abs()).mean(-1)


def built(seed: int) -> tuple[nn.Sequential, list[nn.Module]]:
    """The backbone that everybody has, and adapters and a head that start from `seed`; with the parts that train."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    torch.manual_seed(seed)
    crosses: list[nn.Module] = []
    for place, block in enumerate(encoder.layers):
        tap = Tap(block.self_attn, confidence)
        block.self_attn = tap
        cross = CrossModal(NAMES, hub("rgb", NAMES), partial(GatedCrossAttention, 16), confidence=tap)
        encoder.layers[place] = Parallel(block, cross)
        crosses.append(cross)
    head = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3))
    model = nn.Sequential(encoder, nn.Flatten(0, 1), head)
    return model, [*crosses, head]


def train(model: nn.Module, steps: int = 3) -> list[Tensor]:
    """Train what trains, and return it."""
    torch.manual_seed(1)
    x = torch.randn(4, 5, 16)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return trained


def fingerprint(model: nn.Module) -> str:
    """A hash of the output's bits."""
    x = torch.linspace(-1, 1, 4 * 5 * 16).reshape(4, 5, 16)
    with torch.no_grad():
        return hashlib.sha256(model.eval()(x).numpy().tobytes()).hexdigest()


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# freezing


def test_only_the_parts_train() -> None:
    model, parts = built(1)
    before = copied(model)
    train_only(model, *parts)
    trained = train(model)
    own = {parameter for part in parts for parameter in part.parameters()}
    assert set(trained) == own
    assert {parameter for parameter in model.parameters() if parameter.grad is not None} == own
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert moved <= set(adapter_state(model, *parts))


def test_a_part_is_a_module_a_parameter_or_an_exact_name() -> None:
    model, (first, *_, head) = built(1)
    weight = head[1].weight
    by_identity = train_only(model, first, weight)
    by_name = train_only(model, "0.layers.0.side", "2.1.weight")
    assert by_identity == by_name
    assert {p for p in model.parameters() if p.requires_grad} == {*first.parameters(), weight}
    assert train_only(model, "") == train_only(model, model)


def test_a_later_call_replaces_an_earlier_one() -> None:
    model, parts = built(1)
    train_only(model, *parts)
    assert train_only(model, parts[-1]) == trainable_table(model)
    assert {p for p in model.parameters() if p.requires_grad} == set(parts[-1].parameters())


def test_parts_that_overlap_are_one() -> None:
    model, parts = built(1)
    head = parts[-1]
    assert train_only(model, head, head[1], head[1].weight) == train_only(model, head)


def test_what_is_no_floating_point_number_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].quantised = nn.Parameter(torch.zeros(7, dtype=torch.int8), requires_grad=False)
    table = train_only(model, model[1])
    assert not model[1].quantised.requires_grad
    assert [row.name for row in table.rows] == ["1.weight", "1.bias"]
    assert (table.total.parameters, table.model.parameters) == (6, 19)


def test_lazy_parameters_are_an_error_that_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2))
    with pytest.raises(ValueError, match="uninitialized"):
        train_only(model, model[1])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_running_statistics_are_not_the_business_of_freezing() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    train_only(model, model[1])
    model(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert (model[0].running_mean != 0).all()
    mean = model[0].running_mean.clone()
    model[0].eval()
    model(torch.ones(2, 2))
    assert torch.equal(model[0].running_mean, mean)


# the table


def test_the_table_adds_up() -> None:
    model, parts = built(1)
    table = train_only(model, *parts)
    assert [row.name for row in table.rows] == ["0.layers.0.side", "0.layers.1.side", "2"]
    for row, part in zip(table.rows, parts, strict=True):
        assert model.get_submodule(row.name) is part
        assert row.tensors == len(list(part.parameters()))
        assert row.parameters == sum(parameter.numel() for parameter in part.parameters())
        assert row.share == row.parameters / table.model.parameters
    assert table.total.tensors == sum(row.tensors for row in table.rows)
    assert table.total.parameters == sum(row.parameters for row in table.rows)
    assert table.total.share == table.total.parameters / table.model.parameters
    assert table.model.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert table.model.tensors == len(list(model.parameters()))


def test_a_model_that_trains_wholly_or_not_at_all() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    table = trainable_table(model)
    assert table.rows == (Row("", 2, 9, 1.0),)
    assert str(table).splitlines()[1:] == [
        "(model)        2           9  100.00 %",
        "total          2           9  100.00 % of 9",
    ]
    frozen = trainable_table(model.requires_grad_(False))
    assert frozen.rows == () and frozen.total == Row("total", 0, 0, 0.0)
    assert trainable_table(nn.Identity()).model == Row("model", 0, 0, 0.0)


def test_the_printed_table_is_aligned() -> None:
    model = nn.ModuleDict({"a_long_name": nn.Linear(1000, 3), "b": nn.Linear(2, 2), "c": nn.Linear(9, 9)})
    lines = str(train_only(model, "a_long_name", "b")).splitlines()
    assert lines == [
        "trains       tensors  parameters    share",
        "a_long_name        2       3,003  96.90 %",
        "b                  2           6   0.19 %",
        "total              4       3,009  97.10 % of 3,099",
    ]
    assert all(line == line.rstrip() for line in lines)


def test_names_inside_wrappers_are_those_of_the_state_dict() -> None:
    model, _ = built(1)
    block = model[0].layers[0].base
    attention = block.self_attn.module
    names = ["0.layers.0.self_attn.in_proj_weight", "0.layers.0.self_attn.out_proj", "0.layers.0.norm1"]
    table = train_only(model, block.norm1, attention.out_proj, attention.in_proj_weight)
    assert [row.name for row in table.rows] == names
    keys = set(model.state_dict())
    assert all(name in keys or f"{name}.weight" in keys for name in names)
    assert train_only(model, *(row.name for row in table.rows)) == table


def test_a_base_that_trains_beside_a_frozen_side_is_told_from_the_whole() -> None:
    model = nn.Sequential(Parallel(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    assert [row.name for row in train_only(model, model[0].base).rows] == ["0.base"]
    assert [row.name for row in train_only(model, model[0]).rows] == ["0"]
    assert [row.name for row in train_only(model[0], model[0].base).rows] == ["base"]


def test_a_name_that_would_lead_elsewhere_is_spelt_out() -> None:
    inner = nn.ModuleDict({"base": nn.Linear(2, 2), "rest": nn.Linear(2, 2)})
    model = nn.Sequential(Parallel(inner, nn.Linear(2, 2)))
    for part, name in ((inner["base"], "0.base.base"), (inner["rest"], "0.rest")):
        table = train_only(model, part)
        assert [row.name for row in table.rows] == [name]
        assert train_only(model, name) == table


def test_tied_tensors_count_once_under_their_first_name() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "mid": nn.Linear(3, 3), "head": nn.Linear(3, 5)})
    model["head"].weight = model["embedding"].weight
    table = train_only(model, "head")
    assert [(row.name, row.tensors, row.parameters) for row in table.rows] == [("embedding", 1, 15), ("head", 1, 5)]
    assert (table.total.parameters, table.model.parameters) == (20, 32)
    shared = nn.Linear(2, 2)
    twice = nn.Sequential(shared, nn.Linear(2, 2), shared)
    assert [row.name for row in train_only(twice, shared).rows] == ["0"]


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_the_table_is_a_value(copy_of: object) -> None:
    table = trainable_table(nn.Linear(2, 2))
    twin = copy_of(table)  # type: ignore[operator]
    assert isinstance(twin, Trainable) and twin == table and str(twin) == str(table) and hash(twin) == hash(table)
    with pytest.raises(AttributeError):
        table.rows = ()  # type: ignore[misc]


# the state


def test_the_state_has_the_keys_of_the_model_and_nothing_of_the_backbone() -> None:
    model, parts = built(1)
    state, whole = adapter_state(model, *parts), model.state_dict()
    assert list(state) == [key for key in whole if ".side." in key or key.startswith("2.")]
    assert {"2.0.running_mean", "2.0.num_batches_tracked"} <= set(state)
    assert all(torch.equal(value, whole[key]) and not value.requires_grad for key, value in state.items())
    assert all(type(value) is Tensor for value in state.values())
    assert same(state, adapter_state(model, *(row.name for row in train_only(model, *reversed(parts)).rows)))


def test_the_state_is_a_snapshot() -> None:
    model, parts = built(1)
    train_only(model, *parts)
    state = adapter_state(model, *parts)
    kept = {key: value.clone() for key, value in state.items()}
    train(model)
    assert same(state, kept)
    assert not same(state, adapter_state(model, *parts))


class Odd(nn.Module):
    """Tied, transposed and overlapping tensors, a buffer that is not saved, and scalars."""

    def __init__(self) -> None:
        super().__init__()
        memory = torch.randn(6, 4)
        self.first, self.second = nn.Parameter(memory[:3]), nn.Parameter(memory[2:])
        self.transposed = nn.Parameter(torch.randn(2, 3).mT)
        self.tied = self.first
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("left_behind", torch.ones(2), persistent=False)


def test_odd_tensors_are_contiguous_and_share_no_memory(tmp_path: Path) -> None:
    model = nn.ModuleDict({"odd": Odd(), "again": nn.Identity()})
    model["again"] = model["odd"]
    state = adapter_state(model, "again")
    assert list(state) == ["odd.first", "odd.second", "odd.transposed", "odd.count"]
    assert all(value.is_contiguous() for value in state.values())
    assert len({value.untyped_storage().data_ptr() for value in state.values()}) == len(state)
    save_file(state, tmp_path / "odd.safetensors")
    assert same(load_file(tmp_path / "odd.safetensors"), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_file_merges_into_a_fresh_backbone_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model, parts = built(1)
    model.to(dtype)
    with torch.no_grad():
        for part in parts:
            for tensor in part.state_dict().values():
                tensor.copy_(torch.randn(tensor.shape).abs() + 1)
    save_file(adapter_state(model, *parts), tmp_path / "adapters.safetensors")
    fresh, places = built(2)
    fresh.to(dtype)
    assert not same(model.state_dict(), fresh.state_dict())
    identities = [id(parameter) for parameter in fresh.parameters()]
    load_adapter_state(fresh, load_file(tmp_path / "adapters.safetensors"), *places)
    assert same(model.state_dict(), fresh.state_dict())
    assert [id(parameter) for parameter in fresh.parameters()] == identities


def test_nan_and_signed_zero_arrive_as_they_were() -> None:
    model, fresh = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    bits = torch.tensor([[0x7FC00001, -0x80000000], [0x00000001, 0x7F800000]], dtype=torch.int32)
    with torch.no_grad():
        model.weight.view(torch.int32).copy_(bits)
    load_adapter_state(fresh, adapter_state(model, model), fresh)
    assert torch.equal(fresh.weight.view(torch.int32), bits)


def test_loading_leaves_the_rest_of_the_model_alone() -> None:
    model, parts = built(1)
    train_only(model, *parts)
    train(model)
    fresh, places = built(2)
    with torch.no_grad():
        for parameter in fresh[0].layers[0].base.parameters():
            parameter.add_(1)  # a backbone of its own
    fresh[0].requires_grad_(False)
    before, flags = copied(fresh), [parameter.requires_grad for parameter in fresh.parameters()]
    state = adapter_state(model, *parts)
    load_adapter_state(fresh, state, *places)
    after = fresh.state_dict()
    assert same(
        {key: after[key] for key in after if key not in state}, {k: before[k] for k in before if k not in state}
    )
    assert same({key: after[key] for key in state}, state)
    assert [parameter.requires_grad for parameter in fresh.parameters()] == flags


def test_a_whole_checkpoint_takes_the_state_too() -> None:
    model, parts = built(1)
    fresh, _ = built(2)
    found = fresh.load_state_dict(adapter_state(model, *parts), strict=False)
    assert not found.unexpected_keys
    assert same(fresh.state_dict(), model.state_dict())


def test_loading_is_all_or_nothing() -> None:
    model, parts = built(1)
    good = adapter_state(model, *parts)
    fresh, places = built(2)
    before = copied(fresh)
    last = list(good)[-2]
    wrong = {
        "dtype": {**good, last: good[last].double()},
        "shape": {**good, last: torch.zeros(9, 9)},
        "missing": {key: value for key, value in good.items() if key != last},
        "unexpected": {**good, "stranger": torch.zeros(2)},
        "no tensor": {**good, last: good[last].tolist()},
        "meta": {**good, last: good[last].to("meta")},
    }
    for name, state in wrong.items():
        with pytest.raises((TypeError, ValueError)):
            load_adapter_state(fresh, state, *places)
        assert same(fresh.state_dict(), before), name
    load_adapter_state(fresh, dict(reversed(good.items())), *places)
    assert same(fresh.state_dict(), model.state_dict())


def test_a_failing_transfer_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, parts = built(1)
    fresh, places = built(2)
    before, state = copied(fresh), adapter_state(model, *parts)
    real, calls = torch.empty_like, []

    def full(tensor: Tensor) -> Tensor:
        calls.append(tensor)
        if len(calls) == len(state):
            raise torch.OutOfMemoryError("full")
        return real(tensor)

    monkeypatch.setattr(torch, "empty_like", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_adapter_state(fresh, state, *places)
    monkeypatch.undo()
    assert same(fresh.state_dict(), before)


def test_many_strange_keys_are_counted_and_a_few_are_named() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    state = {f"_orig_mod.{key}": value for key, value in adapter_state(model, "").items()}
    words = "8 missing ('0.weight', '0.bias', '1.weight', …) and 8 unexpected ('_orig_mod.0.weight', "
    with pytest.raises(ValueError, match=re.escape(words)):
        load_adapter_state(model, state, "")


FRESH = """
import sys
import torch
from safetensors.torch import load_file
from balancekit.adapters import load_adapter_state
from tests.unit.test_trainable import built, fingerprint

torch.set_num_threads(1)
model, parts = built(2)
print(fingerprint(model))
load_adapter_state(model, load_file(sys.argv[1]), *parts)
print(fingerprint(model))
"""


def test_a_fresh_process_computes_the_same_bits(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, parts = built(1)
    train_only(model, *parts)
    train(model)
    save_file(adapter_state(model, *parts), tmp_path / "adapters.safetensors")
    expected = fingerprint(model)
    torch.set_num_threads(threads)
    script = tmp_path / "fresh.py"
    script.write_text(FRESH)
    command = [sys.executable, script, tmp_path / "adapters.safetensors"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, after = ran.stdout.split()
    assert before != expected
    assert after == expected


# documentation


@pytest.mark.parametrize("module", [trainable_file, state_file])
def test_the_examples_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0 and found.failed == 0


def test_a_model_of_one_number_trains_as_a_whole() -> None:
    assert trainable_table(nn.Linear(1, 1, bias=False)).rows == (Row("", 1, 1, 1.0),)


def test_complex_parameters_can_train() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2, dtype=torch.complex64)})
    assert [row.name for row in train_only(model, "b").rows] == ["b"]
    assert model["b"].weight.requires_grad and not model["a"].weight.requires_grad


@pytest.mark.parametrize(("layers", "shown"), [(3, "'0.weight', '1.weight', '2.weight')"), (4, "'2.weight', …)")])
def test_an_error_spells_out_three_keys(layers: int, shown: str) -> None:
    model = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(layers)))
    with pytest.raises(ValueError, match=re.escape(f"found {layers} missing (")) as caught:
        load_adapter_state(model, {}, "")
    assert str(caught.value).endswith(shown)
