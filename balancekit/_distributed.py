"""Sums across ranks: the identity when no process group exists."""

import zlib
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks in the default process group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def expect_agreement(argument: str, facts: object, device: torch.device) -> None:
    """Raise on every rank unless the ranks come with equal `facts`: sums across ranks go by place and size.

    One small collective; a compiled graph leaves it out. On an accelerator it is an assertion on the device, which
    costs no synchronisation, and ends the process.
    """
    if world_size() == 1 or torch.compiler.is_compiling():
        return
    if dist.get_backend() == "nccl":  # which has no CPU
        device = torch.device("cuda", torch.cuda.current_device())
    mark = torch.full((1,), zlib.crc32(repr(facts).encode()), dtype=torch.int64, device=device)
    ends = torch.cat([mark, -mark])
    dist.all_reduce(ends, op=dist.ReduceOp.MAX)
    agree = ends.sum() == 0
    message = f"{argument}: expected the same on all ranks, found here {facts}"
    if device.type == "cpu":
        if not agree:
            raise ValueError(message)
    else:
        torch._assert_async(agree, message)  # pyright: ignore[reportPrivateImportUsage]


def common_generator(device: torch.device) -> torch.Generator:
    """A generator that is the same on all ranks, seeded by a draw from the stream of each."""
    (seed,) = all_reduce_sum([torch.randint(2**40, (), device=device)])
    return torch.Generator(device).manual_seed(int(seed))


def all_reduce_sum(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Sum each tensor over all ranks in one collective; inputs are left as they are.

    All tensors must share a device and, per position, their shape across ranks. They travel in the widest dtype among
    them, float64 where integers are, and come back in their own.
    """
    tensors = list(tensors)
    if world_size() == 1 or not tensors:
        return tensors
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    if not all(tensor.is_floating_point() for tensor in tensors):
        dtype = torch.float64  # counts stay exact
    flat = torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]
