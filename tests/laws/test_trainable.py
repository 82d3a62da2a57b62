"""Laws of freezing and of the adapters' state, on models drawn at random, with wrappers, tied and shared parts."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from balancekit.adapters import Parallel, Tap, adapter_state, load_adapter_state, train_only, trainable_table

TWIG = st.sampled_from(["linear", "norm", "odd", "empty", "shared", "tied"])
SHAPE = st.recursive(
    TWIG,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3), st.tuples(st.sampled_from(["parallel", "tap"]), inner)
    ),
    max_leaves=8,
)


def grow(shape: object, shared: nn.Linear) -> nn.Module:
    if isinstance(shape, list):
        return nn.ModuleDict({name: grow(each, shared) for name, each in zip(("base", "b", "c"), shape, strict=False)})
    if isinstance(shape, tuple):
        wrapper, inner = shape
        base = grow(inner, shared)
        if wrapper == "tap":
            return Tap(base, lambda y: y)
        clash = any(key.startswith("side.") for key in base.state_dict())
        return base if clash else Parallel(base, nn.Linear(2, 2))
    if shape == "shared":
        return shared
    leaves = {"linear": nn.Linear(2, 3), "norm": nn.BatchNorm1d(2), "empty": nn.ReLU(), "tied": nn.Linear(2, 2)}
    if shape == "tied":
        leaves["tied"].weight = shared.weight
    if shape == "odd":
        odd = nn.Linear(1, 1)
        odd.scale = nn.Parameter(torch.ones(2, 2).mT)
        odd.quantised = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
        return odd
    return leaves[str(shape)]


def tree(shape: object, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    shared = nn.Linear(2, 2)
    return nn.ModuleDict({"trunk": grow(shape, shared), "head": shared})


def some(data: st.DataObject, model: nn.Module) -> list[str]:
    """Names of modules and parameters with something that can train."""
    names = [name for name, module in model.named_modules() if any(p.is_floating_point() for p in module.parameters())]
    names += [name for name, parameter in model.named_parameters() if parameter.is_floating_point()]
    return data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPE, data=st.data())
def test_the_table_holds_all_that_trains_once_and_its_names_are_parts(shape: object, data: st.DataObject) -> None:
    model = tree(shape, 0)
    table = train_only(model, *some(data, model))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert table == trainable_table(model)
    assert table.total.tensors == len(trained) == sum(row.tensors for row in table.rows)
    assert table.total.parameters == sum(p.numel() for p in trained) == sum(row.parameters for row in table.rows)
    names = [row.name for row in table.rows]
    assert len(set(names)) == len(names)
    assert train_only(model, *names) == table
    assert {p for p in model.parameters() if p.requires_grad} == set(trained)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPE, data=st.data(), dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_the_state_carries_the_parts_and_nothing_else(shape: object, data: st.DataObject, dtype: torch.dtype) -> None:
    model, other = tree(shape, 0).to(dtype), tree(shape, 1).to(dtype)
    parts = some(data, model)
    state, before = adapter_state(model, *parts), {key: value.clone() for key, value in other.state_dict().items()}
    load_adapter_state(other, state, *parts)
    whole, after = model.state_dict(keep_vars=True), other.state_dict()
    moved: set[Tensor] = {whole[key] for key in state}
    for key, tensor in whole.items():
        assert torch.equal(after[key], tensor if tensor in moved else before[key])
    storages = {value.untyped_storage().data_ptr() for value in state.values()}
    assert len(storages) == len(state) and all(value.is_contiguous() for value in state.values())
