"""The state of the adapters alone: a few megabytes beside a backbone that everybody has.

With safetensors, or with ``torch.save``:

    save_file(adapter_state(model, *parts), path)
    load_adapter_state(fresh, load_file(path), *parts)        # the fresh model, with the same parts in place
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from balancekit._checks import describe, expect
from balancekit.adapters._trainable import find_parts
from balancekit.branches import Target

SHOWN = 3
"""How many keys an error spells out."""


def adapter_state(model: nn.Module, *parts: Target) -> dict[str, Tensor]:
    """Copy the entries of the model's state dict that belong to the parts: parameters and persistent buffers.

    The keys are those of ``model.state_dict()``, so that a checkpoint of the whole model takes them as well. Unlike
    there, the tensors are a snapshot: training on does not change them. They are contiguous and share no memory, as
    safetensors wants it; what occurs under several keys (tied weights, a shared module) is kept under the first. They
    stay on their device.

    Hand over the model itself: the keys of a compiled or DistributedDataParallel wrapper fit only the like of it.

    Args:
        model: the model.
        *parts: modules of the model, its parameters, or the exact dotted name of either.

    Raises:
        ValueError: without a part, or for a part that is not in the model, has no state, or has a state that is not
            made of parameters and buffers (``get_extra_state``).

    Example:
        >>> from balancekit.adapters import Parallel
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> model[0] = Parallel(model[0], nn.Linear(4, 4, bias=False))
        >>> state = adapter_state(model, model[0].side, "1")
        >>> {key: tuple(value.shape) for key, value in state.items()}
        {'0.side.weight': (4, 4), '1.weight': (2, 4), '1.bias': (2,)}
    """
    live = _live(model, parts)
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in live.items()}


def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor], *parts: Target) -> None:
    """Write the state of :func:`adapter_state` into the same parts of another model, bit for bit.

    Nothing else in the model changes, and nothing at all if there is an error. Keys, shapes and dtypes must be those of
    ``adapter_state(model, *parts)``; a cast would not be bit for bit, so bring the model to the dtype of the state
    first. The device may differ.

    Args:
        model: the model, with the parts in place.
        state: what :func:`adapter_state` returned, or what was read back from a file.
        *parts: as handed to :func:`adapter_state`.

    Raises:
        ValueError: for missing and unexpected keys, another shape, or tensors without values (meta device).
        TypeError: for a value that is no tensor, or of another dtype.

    Example:
        >>> trained, fresh = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)) for _ in range(2))
        >>> load_adapter_state(fresh, adapter_state(trained, "1"), "1")
        >>> torch.equal(fresh[1].weight, trained[1].weight), torch.equal(fresh[0].weight, trained[0].weight)
        (True, False)
    """
    live = _live(model, parts)
    expect(isinstance(state, Mapping), "state", "a mapping from keys to tensors", state, error=TypeError)
    missing, unexpected = [key for key in live if key not in state], [key for key in state if key not in live]
    if missing or unexpected:
        sides = ((missing, "missing"), (unexpected, "unexpected"))
        found = " and ".join(f"{len(keys)} {side} ({_shown(keys)})" for keys, side in sides if keys)
        raise ValueError(f"state: expected exactly the keys of adapter_state(model, *parts), found {found}")
    for key, tensor in live.items():
        value, argument, like = state[key], f"state[{key!r}]", describe(tensor)
        expect(isinstance(value, Tensor) and value.dtype == tensor.dtype, argument, like, value, error=TypeError)
        expect(value.shape == tensor.shape, argument, like, value)
        for whose, each in ((argument, value), (f"model, {key!r}", tensor)):
            expect(not each.is_meta, whose, "a tensor that has values", f"{like} on the meta device")
    with torch.no_grad():
        arrived = {key: torch.empty_like(tensor).copy_(state[key]) for key, tensor in live.items()}  # may yet fail
        for key, tensor in live.items():
            tensor.copy_(arrived[key])


def _live(model: nn.Module, parts: tuple[Target, ...]) -> dict[str, Tensor]:
    """The tensors of the parts themselves, in the order of the model's state dict, each under its first key."""
    located = find_parts(model, parts)
    keys: dict[Tensor, str] = {}
    for key, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):  # wrappers rename keys, but keep_vars hands out the tensors themselves
            keys.setdefault(value, key)
    wanted: set[Tensor] = set()
    for argument, part in located:
        own = part.state_dict(keep_vars=True) if isinstance(part, nn.Module) else {"": part}
        expect(len(own) > 0, argument, "a part with parameters or persistent buffers", part)
        for key, value in own.items():
            expect(isinstance(value, Tensor) and value in keys, argument, "a state of parameters and buffers only", key)
            wanted.add(value)
    return {key: tensor for tensor, key in keys.items() if tensor in wanted}


def _shown(keys: list[str]) -> str:
    return ", ".join([*map(repr, keys[:SHOWN]), *(["…"] if len(keys) > SHOWN else [])])
