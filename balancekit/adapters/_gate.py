"""Cross-attention whose rows or keys a confidence can silence, on the fused kernel.

MMDG (arXiv 2402.19298), Eq. 4: every query row is scaled by the confidence of its own token, before the softmax.

    query   out_i = Σ_j softmax_j(confidence_i · q_i·k_j / √d) v_j      an inverse temperature: at 0 the mean of v
    key     out_i = Σ_j confidence_j exp(q_i·k_j / √d) v_j / Σ_j confidence_j exp(q_i·k_j / √d)

The confidence of a query is folded into q, that of a key is a bias log(confidence_j): nothing of size n × n is kept.
The key gate is an extension: the paper's gate cannot turn a single bad key off.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from balancekit._checks import expect_choice, expect_device, expect_floating, expect_shape
from balancekit._precision import widen
from balancekit._typing import Float

_CUDA_MULTIPLE = 8  # the memory-efficient kernel wants widths divisible by 4 (float32) or 8 (half)


def gated_attention(
    q: Float[Tensor, "b h i d"],
    k: Float[Tensor, "b h j d"],
    v: Float[Tensor, "b h j d"],
    confidence: Float[Tensor, "b i"] | Float[Tensor, "b j"] | None = None,
    gate: Literal["query", "key"] = "query",
) -> Float[Tensor, "b h i d"]:
    """Scaled dot-product attention under a gate.

    Args:
        q: queries, after every norm and projection: folding the confidence in before a norm would lose it.
        k: keys.
        v: values.
        confidence: in [0, 1], one a query row ("b i") for the gate "query", one a key ("b j") for "key". None: no gate.
        gate: "query" is MMDG's. At confidence 0 row i is the mean of the values, whatever q says. "key": a token at 0
            has weight exactly 0. A factor common to all keys cancels; where all are at 0, all weights are 0 and so is
            the output.

    Example:
        >>> import torch
        >>> q, v = torch.tensor([[[[50.0]]]]), torch.tensor([[[[1.0], [3.0]]]])
        >>> gated_attention(q, v, v).item()  # the second key wins
        3.0
        >>> gated_attention(q, v, v, torch.zeros(1, 1)).item()  # the query is not trusted: the mean
        2.0
        >>> gated_attention(q, v, v, torch.tensor([[1.0, 0.0]]), gate="key").item()  # the second key is not trusted
        1.0
    """
    expect_choice("gate", gate, ("query", "key"))
    for argument, each in (("q", q), ("k", k), ("v", v)):
        expect_floating(argument, each, "'b h n d'", ndim=4)
        expect_device(argument, each, q)
    expect_shape("k", k, (*q.shape[:2], k.shape[2], q.shape[3]))
    expect_shape("v", v, (*k.shape[:3], v.shape[3]))
    if confidence is None:
        return _loud(_attend(q, k, v), q, k)
    gated = q if gate == "query" else k
    expect_floating("confidence", confidence, "'b n'", ndim=2)
    expect_shape("confidence", confidence, (gated.shape[0], gated.shape[2]))
    expect_device("confidence", confidence, gated)
    if gate == "query":
        q = q * confidence[:, None, :, None].to(q.dtype)
        return _loud(_attend(q, k, v), q, k)
    closed = confidence == 0
    silent = closed.all(-1, keepdim=True)
    bias = confidence.masked_fill(closed, 1).log().masked_fill(closed & ~silent, float("-inf"))
    attend = _attend_by_channel if bias.requires_grad else _attend
    out = attend(q, k, v, bias[:, None, None, :]) * ~silent[:, None, None, :]
    return _loud(out, q, k, closed)


def _loud(out: Tensor, q: Tensor, k: Tensor, closed: Tensor | None = None) -> Tensor:
    """NaN where a score may be NaN or overflow, since the kernel may not say so.

    On CPUs with AVX-512 torch's kernel takes a row of NaN or -inf for one that is masked throughout, and returns zeros.
    No score is larger than the product of the largest numbers, times the width.
    """
    if q.is_cuda or k.shape[2] == 0:
        return out
    keys = k.detach().abs().amax(-1)
    keys = keys if closed is None else keys.masked_fill(closed[:, None], 0)
    largest = widen(q.detach().abs().amax(-1, keepdim=True)) * widen(keys.amax(-1))[..., None, None] * q.shape[-1]
    return out + (0 * largest).to(out.dtype)


def _attend_by_channel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Add the bias of the keys in a head channel of its own: [q, 1]·[k, bias·√d] / √d = q·k / √d + bias.

    A mask that wants a gradient would have its n × n map kept; a channel does not.
    """
    width = q.shape[-1]
    column = (width**0.5 * bias).to(k.dtype).mT.expand(*k.shape[:-1], 1)
    q, k = torch.cat([q, torch.ones_like(q[..., :1])], -1), torch.cat([k, column], -1)
    return _attend(q, k, F.pad(v, (0, 1)), scale=width**-0.5)[..., :width]


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    multiple: int | None = None,
) -> Tensor:
    """Run the fused kernel, with heads padded by zeros to a `multiple` of channels, which is exact.

    On CUDA a head of one channel (MMDG's 8 heads of width 8) would fall back to the plain kernel in float32, which
    keeps the n × n map. On a CPU padding buys nothing and costs time, so there it is left out.
    """
    width = q.shape[-1]
    scale = width**-0.5 if scale is None else scale
    bias = None if bias is None else bias.to(q.dtype)
    if multiple is None:
        multiple = _CUDA_MULTIPLE if q.is_cuda else 1
    if lacking := -width % multiple:
        q, k, v = (F.pad(x, (0, lacking)) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)[..., :width]
