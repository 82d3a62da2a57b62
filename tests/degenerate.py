"""Inputs at the edge, for laws that must hold there too: what tensors hold, how they lie in memory, how many."""

import torch
from hypothesis import strategies as st
from torch import Tensor

FINITE = ("plain", "zero", "rank one", "opposed", "tiny", "huge")
BROKEN = ("nan", "inf", "-inf")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LAYOUTS = ("contiguous", "strided", "transposed", "expanded", "channels last")

finite = st.sampled_from(FINITE)
broken = st.sampled_from(BROKEN)
dtypes = st.sampled_from(DTYPES)
layouts = st.sampled_from(LAYOUTS)
seeds = st.integers(0, 2**16)
batches = st.sampled_from((0, 1, 2, 5))  # none, one sample, the least with a spread, several
counts = st.integers(1, 8)  # of modalities


def filled(kind: str, *shape: int, seed: int, dtype: torch.dtype = torch.float32, layout: str = "contiguous") -> Tensor:
    """A tensor of `shape` that holds `kind` and lies in memory as `layout`, drawn from `seed`.

    "rank one": every row is a multiple of one row. "opposed": each row is minus the row before. "tiny" and "huge": of
    the size 1e-30 and 1e30; where the dtype has no such number, tiny is 0 and huge up to a quarter of its largest.
    "nan", "inf", "-inf": in one place of plain numbers (in none of an empty tensor).
    """
    generator = torch.Generator().manual_seed(seed)
    plain = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind in BROKEN and plain.numel():
        plain.view(-1)[int(torch.randint(plain.numel(), (), generator=generator))] = float(kind)
    elif kind == "zero":
        plain.zero_()
    elif kind in ("rank one", "opposed") and plain.numel():
        rows = plain.shape[0]
        along = torch.randn(rows, generator=generator, dtype=torch.float64)
        if kind == "opposed":
            along = (-1.0) ** torch.arange(rows)
        plain = along.view(-1, *[1] * (plain.dim() - 1)) * plain[:1]
    elif kind == "tiny":
        plain *= 1e-30
    elif kind == "huge":
        plain = plain.clamp(-4, 4) * min(1e30, torch.finfo(dtype).max / 16)
    return laid(plain.to(dtype), layout)


def laid(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers, lying otherwise. A layout that the shape cannot have is left as contiguous.

    "expanded" repeats the first row, with stride 0: its numbers are not those of the tensor.
    """
    if layout == "strided" and tensor.dim():
        return torch.stack([tensor, torch.full_like(tensor, 7.0)], -1).flatten(-2)[..., ::2]
    if layout == "transposed" and tensor.dim() >= 2:
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "expanded" and tensor.dim() and tensor.shape[0]:
        return tensor[:1].expand(tensor.shape)
    if layout == "channels last" and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()
