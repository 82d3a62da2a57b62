import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from balancekit.adapters import Parallel
from balancekit.schedules import purity, relearn_strength, soft_reset

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
some = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**31 - 1)
numbers = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def encoder(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3, seed: int = 0) -> None:
    g = torch.Generator().manual_seed(seed)
    module.train()
    for _ in range(steps):
        x = torch.randn(6, 3, generator=g)
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


def trained(dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[nn.Sequential, dict[str, torch.Tensor]]:
    """An encoder away from its initial state, and that state; nothing in it is as it was."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        module = encoder(dtype)
        initial = copy.deepcopy(module.state_dict())
        with torch.no_grad():
            for each in module.state_dict().values():
                each.add_(1 if each.dtype == torch.int64 else torch.rand_like(each) + 0.5)
    return module, initial


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.uint8) if x.ndim else x[None].view(torch.uint8)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], where: Callable[[str], bool] = lambda _: True) -> bool:
    return all(torch.equal(bits(a[name]), bits(b[name])) for name in a if where(name))


def is_buffer(name: str) -> bool:
    return "running" in name or "num_batches" in name


# purity and strength


@some
@given(numbers, seeds, st.permutations(range(5)), st.permutations(range(5)))
def test_purity_does_not_see_names_or_order(clusters, seed, cluster_names, label_names) -> None:
    g = torch.Generator().manual_seed(seed)
    k = torch.tensor(clusters)
    y = torch.randint(5, k.shape, generator=g)
    expected = purity(k, y)
    assert torch.equal(purity(torch.tensor(cluster_names)[k], torch.tensor(label_names)[y] * 100), expected)
    order = torch.randperm(len(k), generator=g)
    assert torch.equal(purity(k[order], y[order]), expected)


@some
@given(numbers)
def test_purity_is_one_for_pure_clusters_and_the_share_of_the_largest_class_for_a_single_one(labels) -> None:
    y = torch.tensor(labels)
    assert purity(y, y).item() == 1.0
    assert purity(torch.arange(len(labels)), y).item() == 1.0
    largest = max(labels.count(label) for label in labels)
    assert purity(torch.zeros_like(y), y).item() == torch.tensor(largest / len(labels)).item()


@some
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 10))
def test_strength_is_symmetric_between_0_and_1_and_0_without_a_gap(a, b, rate) -> None:
    strength = relearn_strength(a, b, rate=rate)
    assert torch.equal(strength, relearn_strength(b, a, rate=rate))
    assert 0 <= strength <= 1
    assert relearn_strength(a, a, rate=rate).item() == 0.0


def test_strength_grows_with_the_gap_and_with_the_rate() -> None:
    gaps = relearn_strength(torch.ones(5), torch.tensor([1.0, 0.9, 0.7, 0.3, 0.0]))
    assert (gaps.diff() > 0).all()
    rates = torch.stack([relearn_strength(0.9, 0.6, rate=rate) for rate in (0.0, 1.0, 3.0, 5.0)])
    assert (rates.diff() > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_strength_comes_in_float32_or_wider(dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    train, val = torch.tensor([0.75, 0.5], dtype=dtype), torch.tensor([0.5, 0.75], dtype=dtype)
    expected = torch.tanh(torch.tensor([0.75, 0.75], dtype=wide))
    assert torch.equal(relearn_strength(train, val), expected)
    assert torch.equal(relearn_strength(train[0], 0.5), expected[0])
    assert relearn_strength(torch.tensor(float("nan"), dtype=dtype), 0.5).isnan()


# soft reset


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("strength", [0, 0.0, torch.tensor(0.0)])
def test_strength_0_changes_nothing_bit_for_bit(dtype: torch.dtype, buffers: bool, strength) -> None:
    module, initial = trained(dtype)
    with torch.no_grad():
        module[0].weight[0] = torch.tensor([-0.0, float("nan"), float("inf")])
    initial["0.weight"][1] = float("nan")
    optimizer = torch.optim.SGD(module.parameters(), momentum=0.9)
    optimizer.state[module[0].weight]["momentum_buffer"] = torch.ones(4, 3)
    before = copy.deepcopy(module.state_dict())
    soft_reset(module, initial, strength, buffers=buffers, optimizer=optimizer)
    assert same(module.state_dict(), before)
    assert torch.equal(optimizer.state[module[0].weight]["momentum_buffer"], torch.ones(4, 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("strength", [1, 1.0, torch.tensor(1.0)])
def test_strength_1_is_the_initial_state_exactly(dtype: torch.dtype, buffers: bool, strength) -> None:
    module, initial = trained(dtype)
    initial["0.weight"][0] = -0.0
    with torch.no_grad():
        module[0].weight[0] = float("nan")
        module[0].weight[1] = float("inf")
    before = copy.deepcopy(module.state_dict())
    soft_reset(module, initial, strength, buffers=buffers)
    after = module.state_dict()
    assert same(after, initial, lambda name: not is_buffer(name) or (buffers and "running" in name))
    assert same(after, before, lambda name: is_buffer(name) and not (buffers and "running" in name))


@some
@given(seeds, st.floats(0, 1), st.sampled_from(DTYPES))
def test_a_reset_lies_between_and_what_never_moved_does_not_move(seed, strength, dtype) -> None:
    module, initial = trained(dtype, seed)
    initial["3.weight"] = module[3].weight.detach().clone()
    before = copy.deepcopy(module.state_dict())
    soft_reset(module, initial, strength, buffers=True)
    for name, after in module.state_dict().items():
        low, high = torch.minimum(initial[name], before[name]), torch.maximum(initial[name], before[name])
        assert ((low <= after) & (after <= high)).all()
    assert torch.equal(bits(module[3].weight.detach()), bits(before["3.weight"]))


def test_the_sum_is_formed_in_float32_and_rounded_once() -> None:
    g = torch.Generator().manual_seed(0)
    first, now = (torch.randint(-128, 129, (64, 64), generator=g).double() / 64 for _ in range(2))  # exact in bfloat16
    module = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    module.load_state_dict({"weight": now})
    soft_reset(module, {"weight": first.bfloat16()}, 0.25)
    exact = 0.25 * first + 0.75 * now
    assert torch.equal(module.weight.detach(), exact.bfloat16())
    assert not torch.equal(exact.bfloat16(), 0.25 * first.bfloat16() + 0.75 * now.bfloat16())


def test_an_initial_state_of_another_precision_is_used_as_it_is() -> None:
    module = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.constant_(module.weight, 1.0)
    soft_reset(module, {"weight": torch.tensor([[1.0 + 2**-6 + 2**-12]])}, 0.5)
    assert module.weight.item() == 1.0 + 2**-7  # 1 + 2⁻⁷ + 2⁻¹³; of the rounded 1 + 2⁻⁶ it would be a tie


def test_tensors_stay_the_same_objects_and_keep_their_gradients() -> None:
    module, initial = trained()
    parameters = list(module.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    versions = [parameter._version for parameter in parameters]
    soft_reset(module, initial, 0.5)
    for parameter, after, version in zip(parameters, module.parameters(), versions, strict=True):
        assert after is parameter
        assert after.requires_grad
        assert after.is_leaf
        assert after._version > version  # a graph that saved it knows
        assert torch.equal(after.grad, torch.ones_like(after))


def test_nothing_random_is_drawn_and_the_initial_state_stays() -> None:
    module, initial = trained()
    kept, state = copy.deepcopy(initial), torch.random.get_rng_state()
    for strength in (0.5, 1.0):
        soft_reset(module, initial, strength, buffers=True)
        with torch.no_grad():
            module[0].weight.add_(1.0)
    assert same(initial, kept)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_tied_tensors_move_once_and_whole_numbers_not_at_all() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    module["b"].weight = module["a"].weight
    module["c"] = nn.ParameterList([nn.Parameter(torch.tensor([7]), requires_grad=False)])
    nn.init.constant_(module["a"].weight, 4.0)
    zero = torch.zeros(2, 2)
    soft_reset(module, {"a.weight": zero, "b.weight": zero, "c.0": torch.tensor([0])}, 0.5)
    assert torch.equal(module["a"].weight, torch.full((2, 2), 2.0))
    assert module["c"][0].item() == 7


def test_names_are_those_of_the_state_dict_where_a_wrapper_hides_itself() -> None:
    module = Parallel(nn.Linear(2, 2), nn.Linear(2, 2))
    assert {name for name, _ in module.named_parameters()} != set(module.state_dict())
    initial = {name: torch.zeros_like(each) for name, each in module.state_dict().items()}
    soft_reset(module, initial, 1.0)
    assert not any(parameter.any() for parameter in module.parameters())


def test_a_part_of_the_model_is_reset_alone() -> None:
    model = nn.ModuleDict({"audio": encoder(), "video": encoder()})
    initial = copy.deepcopy(model["audio"].state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    video = copy.deepcopy(model["video"].state_dict())
    soft_reset(model["audio"], {**initial, "head.weight": torch.zeros(9)}, 1.0)  # an entry that it has not
    assert same(dict(model["audio"].named_parameters()), initial)
    assert same(model["video"].state_dict(), video)


OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.9, centered=True),
    "rprop": lambda parameters: torch.optim.Rprop(parameters, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_full_reset_with_both_options_trains_on_like_a_new_module(name: str) -> None:
    torch.manual_seed(0)
    module = encoder()
    initial = copy.deepcopy(module.state_dict())
    fresh = copy.deepcopy(module)
    optimizer, new = OPTIMIZERS[name](module.parameters()), OPTIMIZERS[name](fresh.parameters())
    train(module, optimizer, seed=1)
    soft_reset(module, initial, 1.0, buffers=True, optimizer=optimizer)
    train(module, optimizer, seed=2)
    train(fresh, new, seed=2)
    assert same(module.state_dict(), fresh.state_dict(), lambda key: "num_batches" not in key)


def test_by_default_the_optimizer_and_the_buffers_are_left_alone() -> None:
    module, initial = trained()
    optimizer = torch.optim.Adam(module.parameters())
    train(module, optimizer)
    state, before = copy.deepcopy(optimizer.state_dict()["state"]), copy.deepcopy(module.state_dict())
    soft_reset(module, initial, 0.5)
    for index, entries in optimizer.state_dict()["state"].items():
        assert same(entries, state[index])
    assert len(state) == 6
    assert same(module.state_dict(), before, is_buffer)


def test_the_optimizer_forgets_these_parameters_alone() -> None:
    module, initial = trained()
    other = nn.Linear(3, 2)
    optimizer = torch.optim.Adam([{"params": module.parameters()}, {"params": other.parameters()}])
    train(module, optimizer)
    train(other, optimizer)
    kept = copy.deepcopy(optimizer.state[other.weight])
    soft_reset(module, initial, 0.1, optimizer=optimizer)
    assert set(optimizer.state) == set(other.parameters())
    assert same(optimizer.state[other.weight], kept)


def test_a_failure_in_the_sum_comes_before_the_first_write() -> None:
    module, initial = trained()
    before = copy.deepcopy(module.state_dict())
    initial["3.bias"] = initial["3.bias"].to("meta")  # right in all that is checked, and without numbers
    with pytest.raises(NotImplementedError):
        soft_reset(module, initial, 0.5)
    assert same(module.state_dict(), before)
