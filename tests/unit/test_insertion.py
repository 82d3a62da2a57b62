"""Into a model that is not ours, and out again."""

import copy
import pickle
import warnings
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from balancekit.adapters import CrossModal, GatedCrossAttention, Parallel, Tap, remove, ring


def layer(**options: object) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True, **options)


class Attention(nn.Module):
    """Returns a tuple, as attention does in many libraries."""

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return 2 * x, "weights"


def test_beside_a_module_that_returns_a_tuple() -> None:
    x = torch.randn(2, 3)
    out, weights = Parallel(Attention(), nn.Identity())(x)
    assert torch.equal(out, 3 * x) and weights == "weights"


class Both(NamedTuple):
    out: Tensor
    weight: float


class Named(nn.Module):
    def forward(self, x: Tensor) -> Both:
        return Both(x, 0.5)


def test_beside_a_module_that_returns_a_named_tuple() -> None:
    x = torch.ones(2, 3)
    found = Parallel(Named(), nn.Identity())(x)
    assert isinstance(found, Both) and found.weight == 0.5 and (found.out == 2).all()


class ByKeyword(nn.Module):
    """Calls its parts by keyword, as the blocks of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(input=self.a(input=x))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_beside_a_module_that_is_called_by_keyword(elsewhere: bool) -> None:
    model, side, x = ByKeyword(), nn.Linear(3, 3), torch.randn(2, 3)
    y = model.a(x)
    expected = model.b(y) + side(x if elsewhere else y)
    model.b = Parallel(model.b, side, input_of=model.a if elsewhere else None)
    torch.testing.assert_close(model(x), expected)


class MLP(nn.Module):
    """With a flag, as the attention of timm has one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.flag = nn.Linear(3, 3), nn.Linear(3, 3), True

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x)) if self.flag else x


def test_what_is_set_on_a_wrapper_is_set_in_the_module() -> None:
    inner, x = MLP(), torch.randn(2, 3)
    keys = set(inner.state_dict())
    wrapper = Tap(Parallel(inner, nn.Identity()), torch.mean)
    wrapper.fc1 = Parallel(wrapper.fc1, deep := nn.Linear(3, 3))  # into what is wrapped already
    assert isinstance(inner.fc1, Parallel)
    torch.testing.assert_close(wrapper(x), inner.fc2(inner.fc1.base(x) + deep(x)) + x)
    assert set(wrapper.state_dict()) == keys | {"fc1.side.weight", "fc1.side.bias"}
    wrapper.flag = False
    assert inner.flag is False and torch.equal(wrapper(x), 2 * x)
    wrapper.fc2.weight = nn.Parameter(torch.zeros(3, 3))
    assert (inner.fc2.weight == 0).all()
    wrapper.module.scale = 0.5  # what a wrapper has itself stays its own
    wrapper._private, wrapper.new = 1, 2
    assert wrapper.module.scale == 0.5 and not {"scale", "_private", "new"} & set(vars(inner))
    assert wrapper.eval().training is inner.training is False
    twin = twins(wrapper)[0]
    twin.flag = True
    assert inner.flag is False


def test_removal_finds_the_hooks_of_what_was_taken_out_by_hand() -> None:
    block = layer()
    beside_mlp(block)
    Tap(block.linear1, torch.mean)
    block.linear2 = block.linear2.base
    assert hooks(remove(block)) == 0


def beside_mlp(encoder: nn.TransformerEncoderLayer) -> nn.Linear:
    """A side beside both linear layers of the block's MLP."""
    side = nn.Linear(8, 8)
    encoder.linear2 = Parallel(encoder.linear2, side, input_of=encoder.linear1)
    return side


def test_a_side_reads_the_input_of_an_earlier_module() -> None:
    block = layer()
    x = torch.randn(2, 5, 8)
    bare = copy.deepcopy(block)
    keys = set(block.state_dict())
    side = beside_mlp(block)
    middle = x + bare._sa_block(bare.norm1(x), None, None)
    torch.testing.assert_close(block(x), bare(x) + side(bare.norm2(middle)))
    assert {key for key in block.state_dict() if ".side." not in key} == keys
    block(x).sum().backward()
    assert side.weight.grad is not None and side.weight.grad.abs().sum() > 0
    assert block.linear2._read is None  # nothing of the graph is kept


@pytest.mark.parametrize("place", ["self_attn", "linear2", "span"])
def test_torchs_fused_inference_does_not_pass_the_side_by(place: str) -> None:
    block = layer().eval().requires_grad_(False)
    x = torch.randn(2, 5, 8)
    bare = block(x)
    if place == "span":
        beside_mlp(block)
    else:
        base = getattr(block, place)
        side = nn.Linear(8, 8) if place == "self_attn" else nn.Linear(16, 8)
        setattr(block, place, Parallel(base, side))
    with torch.no_grad():
        inference = block(x)
    side_of = getattr(block, "linear2" if place == "span" else place).side
    side_of.weight.requires_grad_()  # whose gradient keeps the fused path off in any case
    torch.testing.assert_close(inference, block(x).detach())
    assert not torch.allclose(inference, bare, atol=1e-2)


@pytest.mark.compiles
def test_a_side_that_reads_elsewhere_compiles_to_one_graph() -> None:
    block = layer()
    beside_mlp(block)
    x = torch.randn(2, 5, 8)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), block(x))
    assert torch.equal(compiled(-x), block(-x))


def twins(model: nn.Module) -> list[nn.Module]:
    return [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]


def test_nested_tokens_are_refused_with_a_remedy() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(block, 1).eval()
    cross = CrossModal(("a", "b"), ring(("a", "b")), partial(GatedCrossAttention, 8))
    encoder.layers[0].linear2 = Parallel(encoder.layers[0].linear2, cross, input_of=encoder.layers[0].linear1)
    hidden = torch.zeros(4, 5, dtype=torch.bool)
    hidden[1, 3:] = True
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its nested tensors are a prototype
        with pytest.raises(ValueError, match="enable_nested_tensor=False"):
            encoder(torch.randn(4, 5, 8), src_key_padding_mask=hidden)


def test_copies_read_their_own_input() -> None:
    block = layer()
    beside_mlp(block)
    x = torch.randn(2, 5, 8)
    expected = block(x)
    for twin in twins(block):
        assert torch.equal(twin(x), expected)
        nn.init.zeros_(twin.linear2.side.weight)
        assert not torch.equal(twin(x), expected)
    assert torch.equal(block(x), expected)


def first(output: tuple[Tensor, ...]) -> Tensor:
    return output[0]


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("copied", [False, True])
def test_removal_restores_the_modules_themselves(copied: bool) -> None:
    model = nn.Sequential(layer(), layer())
    x = torch.randn(2, 5, 8)
    expected, state = model(x), model.state_dict()
    modules = dict(model.named_modules())
    for block in model:
        Tap(block.norm1, torch.mean)  # beside its module
        block.self_attn = Tap(block.self_attn, first)  # in its place
        block.dropout2 = Tap(Parallel(block.dropout2, nn.Linear(8, 8)), torch.mean)  # nested
        beside_mlp(block)
    model[1] = Parallel(model[1], nn.Linear(8, 8))
    model(x)
    if copied:
        model = twins(model)[1]
    assert remove(model) is model
    assert hooks(model) == 0
    assert torch.equal(model(x), expected)
    assert list(model.state_dict()) == list(state)
    found = dict(model.named_modules())
    assert list(found) == list(modules)
    assert copied or all(found[name] is module for name, module in modules.items())


def test_removal_of_a_wrapper_around_everything() -> None:
    inner = nn.Linear(3, 3)
    assert remove(Parallel(Tap(inner, lambda y: y), nn.Linear(3, 3))) is inner
    assert hooks(inner) == 0


def test_a_module_in_two_places_is_restored_in_both() -> None:
    inner = nn.Linear(3, 3)
    wrapper = Parallel(inner, nn.Linear(3, 3))
    model = nn.Sequential(wrapper, wrapper)
    remove(model)
    assert model[0] is inner and model[1] is inner


def test_a_removed_tap_listens_no_more() -> None:
    module = nn.Linear(3, 3)
    tap = Tap(module, lambda y: y)
    module(torch.ones(1, 3))
    seen = tap.value
    tap.remove()
    module(torch.zeros(1, 3))
    assert tap.value is seen and hooks(module) == 0


def test_copies_leave_behind_what_a_side_was_about_to_read() -> None:
    early = nn.Linear(3, 3)
    module = Parallel(nn.Linear(3, 3), nn.Linear(3, 3), input_of=early)
    early(torch.ones(2, 3))
    assert module._read is not None
    for twin in twins(module):
        assert twin._read is None and set(vars(twin)) == set(vars(module))


def test_copies_of_a_tap_leave_its_value_behind() -> None:
    tap = Tap(nn.Linear(3, 3), torch.mean)
    tap(torch.ones(2, 3))
    for twin in twins(tap):
        assert twin._value is None and set(vars(twin)) == set(vars(tap))


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return ()


def test_beside_a_module_that_returns_an_empty_tuple() -> None:
    with pytest.raises(TypeError, match=r"^base: expected a module that returns a tensor"):
        Parallel(Nothing(), nn.Identity())(torch.ones(1))
