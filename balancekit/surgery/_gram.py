"""From gradient rows to Gram matrices, and from weights to gradients: the arithmetic of surgery.

A column holds the gradients of one tensor, one entry a row; None where a loss does not reach the tensor. Gram matrices
are computed in float32 or wider, from rows divided by the largest entry of their tensor, so that neither a loss scale
of 2^16 nor a gradient of 1e-24 matters. Large tensors are read where they lie, pair by pair; small ones are stacked,
since there a call costs more than a copy. No row is written to: autograd may have handed out one tensor twice.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from balancekit._typing import Float

Column = Sequence[Tensor | None]

SMALL = 1 << 14  # entries
_BLOCK = 1 << 20  # entries stacked at once


def on_device(values: Sequence[Any] | float, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of numbers that the host knows, without making the host wait for the device."""
    made = torch.tensor(values, dtype=dtype, device="cpu")
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def gram_matrices(
    columns: Sequence[Column], granule_of: Sequence[int], count: int, like: Tensor
) -> tuple[Float[Tensor, "g r r"], Float[Tensor, "g"]]:
    """Gram matrices of `count` granules, each in units of its largest entry; and those units.

    Args:
        columns: the rows of each tensor; at least one tensor, each with at least one row.
        granule_of: the granule of each tensor.
        count: the number of granules.
        like: on the device that the result goes to.
    """
    first = min(r for column in columns for r, row in enumerate(column) if row is not None)
    groups: dict[Any, list[int]] = defaultdict(list)
    for t, column in enumerate(columns):
        row = next(row for row in column if row is not None)
        small = row.numel() <= SMALL or hasattr(row, "full_tensor")  # a DTensor
        groups[row.numel() if small else None, row.dtype, row.device].append(t)
    order: list[int] = []
    grams: list[Tensor] = []
    scales: list[Tensor] = []
    for (size, *_), members in groups.items():
        step = len(members) if size is None else max(1, _BLOCK // (len(columns[0]) * max(size, 1)))
        for i in range(0, len(members), step):
            part = members[i : i + step]
            gram, scale = (_dotted if size is None else _stacked)([columns[t][first:] for t in part])
            order += part
            grams.append(_whole(gram))
            scales.append(_whole(scale))
    dtype = reduce(torch.promote_types, (gram.dtype for gram in grams))
    gram = torch.nn.functional.pad(torch.cat([gram.to(like.device, dtype) for gram in grams]), (first, 0, first, 0))
    scale = torch.cat([scale.to(like.device, dtype) for scale in scales])
    index = on_device([granule_of[t] for t in order], like.device)
    units = scale.new_zeros(count).scatter_reduce(0, index, scale, "amax")
    relative = scale * _reciprocal(units)[index]
    return gram.new_zeros(count, *gram.shape[1:]).index_add(0, index, relative.square()[:, None, None] * gram), units


def _stacked(columns: Sequence[Column]) -> tuple[Float[Tensor, "t r r"], Float[Tensor, "t"]]:
    """The Gram matrix of each column, in units of its largest entry; all columns have one size."""
    zero = torch.zeros_like(_flat(next(row for row in columns[0] if row is not None)))
    rows = [zero if row is None else _flat(row) for column in columns for row in column]
    block = torch.cat(rows).view(len(columns), len(columns[0]), -1)
    scale = block.abs().amax((1, 2)) if block.numel() else block.new_zeros(len(columns))
    block = block * _reciprocal(scale)[:, None, None]
    products = [(row.unsqueeze(1) * block).sum(-1) for row in block.unbind(1)]  # a matmul may be allowed to use TF32
    return torch.stack(products, 1), scale


def _dotted(columns: Sequence[Column]) -> tuple[Float[Tensor, "t r r"], Float[Tensor, "t"]]:
    """The Gram matrix of each column, in units of its largest entry, by one inner product a pair of rows."""
    flat = _flat(next(row for row in columns[0] if row is not None))
    zero, scratch = flat.new_zeros(()), flat.new_empty(max(_size(column) for column in columns))
    grams, scales = [], []
    for column in columns:
        rows = [None if row is None else _flat(row) for row in column]
        scale = torch.stack([end for row in rows if row is not None for end in torch.aminmax(row)]).abs().amax()
        inverse = _reciprocal(scale)
        entries = [[zero] * len(rows) for _ in rows]
        for i, left in enumerate(rows):
            if left is None:
                continue
            scaled = torch.mul(left, inverse, out=scratch[: left.numel()])  # one side is enough to stay in range
            for j, right in enumerate(rows[: i + 1]):
                if right is not None:
                    entries[i][j] = entries[j][i] = torch.dot(scaled, right)
        grams.append(torch.stack([entry for line in entries for entry in line]).view(len(rows), -1) * inverse)
        scales.append(scale)
    return torch.stack(grams), torch.stack(scales)


def _size(column: Column) -> int:
    return 2 * next(row.numel() for row in column if row is not None)  # a complex entry counts twice


def _flat(row: Tensor) -> Tensor:
    row = row.to_dense() if row.layout != torch.strided else row
    row = torch.view_as_real(row) if row.is_complex() else row  # Re<a, b>
    row = row.reshape(-1)
    return row if row.dtype in (torch.float32, torch.float64) else row.float()


def _whole(value: Tensor) -> Tensor:
    full = getattr(value, "full_tensor", None)  # the sum over the shards of a DTensor
    return value if full is None else full()


def _reciprocal(scale: Tensor) -> Tensor:
    """1 / scale; 1 for zero; finite for what is too small to be inverted."""
    return torch.where(scale == 0, 1, scale.clamp(min=torch.finfo(scale.dtype).tiny)).reciprocal()


def combine(columns: list[list[Tensor | None]], coefficients: Sequence[Sequence[Tensor]]) -> list[Tensor | None]:
    """Σ_r coefficients[t][r] · columns[t][r] for each tensor t, over the rows that exist; the columns are emptied.

    Every row counts, one of coefficient 0 too: 0 · inf is NaN, and a bad gradient must not be lost.
    """
    out: list[Tensor | None] = [None] * len(columns)
    groups: dict[Any, list[int]] = defaultdict(list)
    for t, column in enumerate(columns):
        present = tuple(r for r, row in enumerate(column) if row is not None)
        rows = [row for row in column if row is not None]
        if not rows:
            continue
        row, simple = rows[0], all(type(row) is Tensor and row.layout == torch.strided for row in rows)
        if simple and row.numel() <= SMALL and row.dtype in (torch.float32, torch.float64):
            groups[present, row.dtype, row.device].append(t)
            continue
        out[t] = _sum(rows, [coefficients[t][r] for r in present])
        columns[t] = []  # let go of before the next tensor
    for (present, dtype, device), members in groups.items():
        first, *others = ([columns[t][r] for t in members] for r in present)
        c, *more = ([coefficients[t][r].to(device, dtype) for t in members] for r in present)
        sums = torch._foreach_mul(first, c)  # pyright: ignore[reportPrivateImportUsage]
        for rows, c in zip(others, more, strict=True):
            torch._foreach_addcmul_(sums, rows, c)  # pyright: ignore[reportPrivateImportUsage]
        for t, result in zip(members, sums, strict=True):
            out[t], columns[t] = result, []
    return out


def _sum(rows: Sequence[Tensor], coefficients: Sequence[Tensor]) -> Tensor:
    first, dtype = rows[0], rows[0].dtype
    if first.is_complex() or any(row.layout != torch.strided for row in rows):
        scaled = (row * c.to(row.device) for row, c in zip(rows, coefficients, strict=True))
        return reduce(add, sorted(scaled, key=lambda term: term.is_sparse))  # dense + sparse exists, the other does not
    wide = torch.promote_types(dtype, torch.float32)
    out = first.to(wide) * coefficients[0].to(first.device, wide)
    for row, c in zip(rows[1:], coefficients[1:], strict=True):
        out.addcmul_(row.to(wide), c.to(first.device, wide))
    return out.to(dtype)
