"""Branches and MultiBranch: which parameters, which features, in every order of hooks, copies and compilation."""

import copy
import gc
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from balancekit import Branches, MultiBranch


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
        self.b = nn.Linear(4, 3)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, *, skip_b: bool = False) -> Tensor:
        b = torch.zeros(len(x), 3) if skip_b else self.b(x)
        return self.head(torch.cat([self.a(x), b], -1))


GROUPS = {"a": "a", "b": "b"}
X = torch.linspace(-1, 1, 20).reshape(5, 4)


def check(model: nn.Module, run: object, branches: Branches, plain: Two) -> None:
    with branches.capture() as features:
        output = run(X)
    torch.testing.assert_close(output, plain(X))
    torch.testing.assert_close(features["a"], plain.a(X))
    torch.testing.assert_close(features["b"], plain.b(X))
    assert features["a"].requires_grad


def test_a_mapping_of_parameters_in_every_form_of_target() -> None:
    model = Two()
    branches = Branches(model, {"a": model.a, "b": ["b", "head.bias"], "c": model.head.weight})
    assert list(branches) == ["a", "b", "c"]
    assert [len(parameters) for parameters in branches.values()] == [2, 3, 1]
    assert branches["c"][0] is model.head.weight
    assert branches == branches
    assert branches != Branches(model, {"a": "a"})


def test_parameters_are_looked_up_at_every_call() -> None:
    model = Two()
    branches = Branches(model, {"a": "a", "b": ["b.weight"]})
    old = branches["b"][0]
    model.b.weight = nn.Parameter(torch.zeros(3, 4))
    assert branches["b"][0] is model.b.weight is not old
    other = Two().state_dict()
    model.load_state_dict(other, assign=True)
    assert branches["b"][0] is model.b.weight
    weight_norm(model.b)
    assert {tuple(p.shape) for p in branches["b"]} == {(3, 1), (3, 4)}


def test_tying_after_creation_is_an_error_by_identity() -> None:
    model = Two()
    branches = Branches(model, GROUPS)
    model.b.weight = model.a[0].weight
    with pytest.raises(ValueError, match=r"found 'a\.0\.weight' in both 'a' and 'b'"):
        branches.owners()


def test_param_groups_cover_every_parameter_once() -> None:
    model = Two()
    groups = Branches(model, GROUPS).param_groups(lr=0.1)
    assert [group["name"] for group in groups] == ["a", "b", "rest"]
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in model.parameters())
    optimizer = torch.optim.AdamW(groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 3
    everything = Branches(model, {"all": model}).param_groups()
    assert everything[-1] == {"name": "rest", "params": []}
    torch.optim.SGD(everything, lr=0.1)


def test_absent_is_absent_not_stale() -> None:
    model = Two()
    branches = Branches(model, GROUPS)
    with branches.capture() as features:
        model(X)
    assert set(features) == {"a", "b"}
    with branches.capture() as features:
        model(X, skip_b=True)
    assert set(features) == {"a"}
    model(X)  # outside a capture nothing is kept
    assert all(hook.store is None for hook in branches._hooks)


def test_pool() -> None:
    model = nn.ModuleDict({"a": nn.LSTM(4, 3, batch_first=True), "b": nn.Linear(4, 3)})
    branches = Branches(model, GROUPS, pool={"a": lambda output: output[0].mean(1)})
    with branches.capture() as features:
        model["a"](X[None])
        model["b"](X)
    assert features["a"].shape == (1, 3)
    assert features["b"].shape == (5, 3)
    everywhere = Branches(model, {"b": "b"}, pool=lambda output: output.mean(0))
    with everywhere.capture() as features:
        model["b"](X)
    assert features["b"].shape == (3,)


def test_states_that_are_errors() -> None:
    model = Two()
    branches = Branches(model, GROUPS)
    with pytest.raises(RuntimeError, match="'a' to run once, found 2 runs"), branches.capture():
        model(X)
        model.a(X)
    with pytest.raises(RuntimeError, match=r"found no feature.*before torch\.compile"), branches.capture():
        pass
    with branches.capture():
        model(X)
        with pytest.raises(RuntimeError, match="a capture inside a capture"), branches.capture():
            pass
    with branches.capture() as features:  # the failures above left nothing open
        model(X)
    assert set(features) == {"a", "b"}
    lstm = nn.ModuleDict({"a": nn.LSTM(4, 3)})
    with pytest.raises(TypeError, match=r"output of branch 'a'.*a pool"), Branches(lstm, {"a": "a"}).capture():
        lstm["a"](X)


def test_an_error_in_the_block_is_not_replaced() -> None:
    with pytest.raises(ZeroDivisionError), Branches(Two(), GROUPS).capture():
        _ = 1 / 0


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_hooks_survive_copies(way: str) -> None:
    wrapped = MultiBranch(Two(), GROUPS)
    wrapped(X)
    if way == "deepcopy":
        clone = copy.deepcopy(wrapped)
    elif way == "pickle":
        clone = pickle.loads(pickle.dumps(wrapped))
    else:
        file = io.BytesIO()
        torch.save(wrapped, file)
        file.seek(0)
        clone = torch.load(file, weights_only=False)
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.mul_(2)
    check(clone, clone.model, clone.branches, clone.model)
    assert clone(X).features.keys() == {"a", "b"}
    assert clone.branches["a"][0] is clone.model.a[0].weight
    assert len(clone.model.a._forward_hooks) == 1
    check(wrapped, wrapped.model, wrapped.branches, wrapped.model)


def test_copies_inside_a_capture_take_no_activations_along() -> None:
    model = Two()
    branches = Branches(model, GROUPS)
    with branches.capture() as features:
        model(X)
        clone = copy.deepcopy(model)
        clone(X)
    assert set(features) == {"a", "b"}


def test_deleting_branches_removes_its_hooks() -> None:
    model = Two()
    for _ in range(3):
        branches = Branches(model, GROUPS)
        assert len(model.a._forward_hooks) == 1
        del branches
        gc.collect()
        assert len(model.a._forward_hooks) == len(model.b._forward_hooks) == 0


@pytest.fixture
def _fresh_dynamo() -> object:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo hides it, which fails where warnings are errors
@pytest.mark.usefixtures("_fresh_dynamo")
class TestCompile:
    """Every order of hooks and compilation; the eager backend, since tracing is what decides."""

    @pytest.mark.parametrize("full", [True, False])
    def test_branches_then_compile(self, full: bool) -> None:
        model = Two()
        branches = Branches(model, GROUPS)
        compiled = torch.compile(model, backend="eager", fullgraph=full)
        for _ in range(3):
            check(model, compiled, branches, model)
        compiled(X)
        with branches.capture() as features:
            compiled(X, skip_b=True)
        assert set(features) == {"a"}

    @pytest.mark.parametrize("full", [True, False])
    def test_compile_then_branches_before_the_first_call(self, full: bool) -> None:
        model = Two()
        compiled = torch.compile(model, backend="eager", fullgraph=full)
        check(model, compiled, Branches(model, GROUPS), model)
        compiled = torch.compile(Two(), backend="eager", fullgraph=full)
        check(compiled, compiled, Branches(compiled, GROUPS), compiled._orig_mod)

    def test_compile_and_call_then_branches_is_an_error_with_the_remedy(self) -> None:
        model = Two()
        compiled = torch.compile(model, backend="eager")
        compiled(X)
        for target in (model, compiled):
            branches = Branches(target, GROUPS)
            with pytest.raises(RuntimeError, match=r"Make Branches before torch\.compile"), branches.capture():
                compiled(X)

    def test_compiled_inside_out_then_branches_names_the_branch(self) -> None:
        model = Two()
        model.a = torch.compile(model.a, backend="eager")
        model(X)
        branches = Branches(model, {"a": "a._orig_mod.0", "b": "b"})
        with pytest.raises(RuntimeError, match=r"branch 'a'.*Make Branches before torch\.compile"), branches.capture():
            model(X)

    @pytest.mark.parametrize("in_place", [True, False])
    @pytest.mark.parametrize("before", [True, False])
    def test_compiled_branches(self, in_place: bool, before: bool) -> None:
        model = Two()
        plain = copy.deepcopy(model)
        if before:
            branches = Branches(model, GROUPS)
        if in_place:
            model.a.compile(backend="eager")
        else:
            model.a = torch.compile(model.a, backend="eager")
        if not before:
            branches = Branches(model, GROUPS)
        check(model, model, branches, plain)

    @pytest.mark.parametrize("full", [True, False])
    def test_compiled_multibranch(self, full: bool) -> None:
        wrapped = MultiBranch(Two(), GROUPS)
        compiled = torch.compile(wrapped, backend="eager", fullgraph=full)
        for _ in range(2):
            output, features = compiled(X)
            torch.testing.assert_close(output, wrapped.model(X))
            torch.testing.assert_close(features["b"], wrapped.model.b(X))

    def test_copied_then_compiled(self) -> None:
        wrapped = copy.deepcopy(MultiBranch(Two(), GROUPS))
        compiled = torch.compile(wrapped, backend="eager", fullgraph=True)
        assert set(compiled(X).features) == {"a", "b"}
        again = copy.deepcopy(wrapped)
        assert set(again(X).features) == {"a", "b"}


def test_non_reentrant_checkpointing_captures_once() -> None:
    model = Two()
    branches = Branches(model, GROUPS)
    with branches.capture() as features:
        output = checkpoint(model, X, use_reentrant=False)
    (output.sum() + features["a"].sum()).backward()
    assert set(features) == {"a", "b"}


def test_multibranch_keeps_the_state_dict() -> None:
    model = Two()
    keys = list(model.state_dict())
    wrapped = MultiBranch(model, GROUPS)
    assert list(wrapped.state_dict()) == keys
    assert list(nn.ModuleDict({"inner": wrapped}).state_dict()) == [f"inner.{key}" for key in keys]
    other = Two().state_dict()
    assert str(wrapped.load_state_dict(other)) == "<All keys matched successfully>"
    assert all(torch.equal(model.state_dict()[key], other[key]) for key in keys)
    nested = nn.ModuleDict({"inner": wrapped})
    nested.load_state_dict({f"inner.{key}": value * 2 for key, value in other.items()})
    assert all(torch.equal(model.state_dict()[key], other[key] * 2) for key in keys)
    with pytest.raises(RuntimeError, match="Missing key"):
        wrapped.load_state_dict({})


def test_the_first_module_with_a_forward_is_captured() -> None:
    model = Two()
    model.extra = nn.ParameterList([nn.Parameter(torch.ones(2))])
    branches = Branches(model, {"a": ["extra", "a"], "b": ["b.weight", "b.bias"]})
    with branches.capture() as features:
        model(X)
    assert list(features) == ["a"]
    only_parameters = Branches(model, {"b": ["b.weight"]})
    with pytest.raises(RuntimeError, match="found no feature"), only_parameters.capture():
        model(X)


def test_features_inside_and_after_the_block() -> None:
    model = Two()
    branches = Branches(model, {"b": "b", "a": "a"}, pool=lambda output: output.sum(0))
    with branches.capture() as features:
        assert dict(features) == {}
        model.a(X)
        assert features["a"].shape == (3,)
        assert "b" not in features
        with pytest.raises(KeyError):
            features["b"]
        model.b(X)
    assert list(features) == ["b", "a"]  # the order of the branches, not of running
    assert features["a"] is features["a"]


def test_a_pool_and_non_reentrant_checkpointing() -> None:
    model = Two()
    branches = Branches(model, GROUPS, pool=lambda output: (output.tanh() * output).sigmoid())
    with branches.capture() as features:
        output = checkpoint(model, X, use_reentrant=False)
    (output.sum() + features["a"].sum()).backward()
    assert model.a[0].weight.grad is not None


def test_data_parallel_is_refused_by_name() -> None:
    model = Two()
    with pytest.raises(TypeError, match=r"model: .*DataParallel.*use DistributedDataParallel"):
        Branches(nn.DataParallel(model), {"a": "module.a"})
    branches = Branches(model, GROUPS)
    copy_in_a_thread = model.a._replicate_for_data_parallel()  # what DataParallel runs on each device
    with pytest.raises(RuntimeError, match=r"capture: .*DataParallel.*use DistributedDataParallel"), branches.capture():
        copy_in_a_thread(X)
