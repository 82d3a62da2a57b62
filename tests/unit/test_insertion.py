"""Into a model that is not ours, and out again."""

import copy
import pickle
import warnings
from functools import partial

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
