"""One number for all that a call could change: equal before and after, nothing was touched.

It walks tensors, modules, optimizers and plain objects alike, by their attributes. Of a tensor it takes values, dtype,
shape, device, ``requires_grad``, ``.grad`` and hooks; of anything else all attributes, which for a module are its
parameters, buffers, children, training mode and hooks, and for an optimizer its state and groups. The global random
streams, grad mode and default dtype always count. What has no attributes is itself and nothing else.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

CONTAINERS = (dict, list, tuple, set)
PLAIN = {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size}


def state_hash(*objects: object) -> str:
    """The hash of these objects, of all that they hold, and of the global state of torch, numpy and ``random``."""
    seen: dict[int, int] = {}
    alive = []  # an id is that of one object only as long as it lives
    said: list[str] = []
    waiting: list[Any] = [(_everywhere(), objects)]
    while waiting:
        value = waiting.pop()
        if type(value) in PLAIN or (isinstance(value, CONTAINERS) and not value):
            said.append(f"{type(value).__name__} {value!r}")
        elif id(value) in seen:
            said.append(f"as {seen[id(value)]}")
        else:
            seen[id(value)] = len(seen)
            alive.append(value)
            parts = [*_parts(value)]
            said.append(f"{type(value).__name__} of {len(parts)}")
            waiting += reversed(parts)
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def _everywhere() -> tuple[Any, ...]:
    streams = torch.get_rng_state(), np.random.get_state(), repr(random.getstate())  # noqa: NPY002 - the global one
    return *streams, torch.is_grad_enabled(), torch.get_default_dtype()


def _parts(value: Any) -> Iterator[Any]:
    """What a value is made of; the order counts."""
    if isinstance(value, dict | MappingProxyType):
        yield from _items(value)
        yield getattr(value, "__dict__", None)
    elif isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, set | frozenset):
        yield from sorted(value, key=hash)
    elif isinstance(value, Tensor):
        yield from (value.dtype, value.shape, value.device, value.requires_grad, type(value.grad_fn).__name__)
        yield from (_bytes(value.detach()), value._backward_hooks, value.grad if value.is_leaf else None)
        yield from (value._post_accumulate_grad_hooks, vars(value))
    elif isinstance(value, np.ndarray):
        yield from (str(value.dtype), value.shape, value.tobytes())
    elif isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        yield from (value.__qualname__, id(value), value.__defaults__, value.__kwdefaults__, cells)
    elif isinstance(value, MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, torch.Generator):
        yield value.get_state()
    elif isinstance(value, type | ModuleType) or not hasattr(value, "__dict__"):
        yield id(value)
    else:
        yield from _items(vars(value))


def _items(mapping: Mapping[Any, Any]) -> Iterator[Any]:
    for key, each in mapping.items():
        yield key
        yield each


def _bytes(tensor: Tensor) -> bytes:
    if tensor.is_meta or tensor.numel() == 0:
        return b""
    return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
