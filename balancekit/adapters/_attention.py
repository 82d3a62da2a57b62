"""U-Adapter: the other modality asks, the own tokens answer, and a confidence says how loudly it may ask.

MMDG (arXiv 2402.19298), Eq. 4 and Fig. 3(c), with the body of the released code (layer sizes, order, initialisation):

    x, y  = QuickGELU(down_own own), QuickGELU(down_other other)
    z     = LayerNorm(x + out(attention(q = query y, k = key x, v = value x, confidence)))
    delta = scale · up Dropout(QuickGELU(conv z))    up = 0 at the start; conv: on the grid of patches, optional

With ``queries="own"`` x and y change places in the attention: the ordinary cross-attention, where the own tokens ask.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from balancekit._checks import (
    expect,
    expect_choice,
    expect_count,
    expect_device,
    expect_floating,
    expect_number,
    expect_shape,
    is_real,
)
from balancekit._typing import Float
from balancekit.adapters._bottleneck import UpProjection, down_projection, quick_gelu
from balancekit.adapters._cdc import CentralDifferenceConv2d
from balancekit.adapters._gate import gated_attention
from balancekit.adapters._tokens import as_grid, convolve_tokens, expect_grid

Gate = Literal["query", "key", "output", "key+output"]
Side = Literal["other", "own"]


class GatedCrossAttention(nn.Module):
    """Cross-attention adapter with a bottleneck; returns what is to be added to `own` (or to the block's output).

    Args:
        dim: width d of the own tokens.
        other_dim: width e of the other modality's tokens; `dim` by default.
        width: bottleneck (8: MMDG's released code).
        heads: attention heads; must divide `width`, so a smaller width needs fewer (8: released code, hence one channel
            a head).
        queries: who asks. "other" (MMDG): row i asks with the other's token i and is added to the own token i, so both
            sides need equally many tokens. "own": the own tokens ask and the other's answer, however many there are.
        gate: where a confidence acts.
            "query" (MMDG): on the rows of the tokens that ask. One at 0 steers nothing: its row is the mean of the
            answering values.
            "key": on the tokens that answer. One at 0 has weight 0 in every row; with all at 0 the attention adds
            nothing but its bias. A factor common to all cancels.
            "output": the delta is multiplied by the other's confidence, row by row where the other asks, by its mean
            over the tokens where the own tokens ask. At 0 the delta is exactly 0.
            "key+output": both. Bad tokens are passed over, and a modality that is bad throughout is silenced.
        qk_norm: normalise queries and keys (LayerNorm over all heads together, so that heads of one channel keep their
            contrast) before the gate.
        conv: None, "plain", or "cdc" (the paper's): a 3×3 convolution without bias after the attention.
        theta: share of the central difference of "cdc" (0.5: released code).
        grid: side, or (height, width), of the grid of the own patches; needed and read by `conv` only.
        prefix: own tokens before the patches (the class token), which the convolution sees as 1×1 maps.
        dropout: before the up-projection, in training only (0.2: released code).
        scale: factor on the delta; "learned": a parameter that starts at 1.
        device: where the parameters are made.
        dtype: of the parameters.

    Example:
        >>> adapter = GatedCrossAttention(16, gate="output", conv="cdc", grid=3).eval()
        >>> depth, rgb = torch.randn(2, 10, 16), torch.randn(2, 10, 16)
        >>> bool((adapter(depth, rgb) == 0).all())  # the model that it joins is unchanged at the start
        True
        >>> _ = nn.init.normal_(adapter.up.weight)
        >>> confidence = torch.tensor([[1.0], [0.0]]).expand(2, 10)
        >>> (adapter(depth, rgb, confidence) == 0).flatten(1).all(1)  # sample 1: rgb is not to be trusted
        tensor([False,  True])
        >>> text = torch.randn(2, 7, 12)
        >>> GatedCrossAttention(16, other_dim=12, queries="own")(rgb, text).shape
        torch.Size([2, 10, 16])

    Method:
        Name: U-Adapter
        Paper: Lin et al., CVPR 2024, arXiv 2402.19298
        Equation: 1 to 3
        Hook: inside the backbone
        Cost: adapters
        Modalities: any; edges of a graph
        Test: tests/oracles/test_adapters.py
    """

    def __init__(
        self,
        dim: int,
        *,
        other_dim: int | None = None,
        width: int = 8,
        heads: int = 8,
        queries: Side = "other",
        gate: Gate = "query",
        qk_norm: bool = False,
        conv: Literal["plain", "cdc"] | None = None,
        theta: float = 0.5,
        grid: int | tuple[int, int] | None = None,
        prefix: int = 1,
        dropout: float = 0.2,
        scale: float | Literal["learned"] = 1.0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        other_dim = dim if other_dim is None else other_dim
        for argument, value in (("dim", dim), ("other_dim", other_dim), ("width", width), ("heads", heads)):
            expect_count(argument, value)
        expect(width % heads == 0, "heads", f"a divisor of width = {width}", heads)
        expect_choice("queries", queries, ("other", "own"))
        expect_choice("gate", gate, ("query", "key", "output", "key+output"))
        expect_choice("conv", conv, (None, "plain", "cdc"))
        expect(conv is None or grid is not None, "grid", "the grid of patches that conv runs on", grid)
        expect_number("theta", theta, low=0.0, high=1.0)
        expect_count("prefix", prefix, low=0)
        expect_number("dropout", dropout, low=0.0, high=1.0)
        expect(scale == "learned" or is_real(scale), "scale", "a number or 'learned'", scale, error=TypeError)
        if scale != "learned":
            expect_number("scale", scale)
        self.dim, self.other_dim, self.heads, self.prefix = dim, other_dim, heads, prefix
        self.queries: Side = queries
        self.gate: Gate = gate
        self.grid = None if grid is None else as_grid(grid)
        to = {"device": device, "dtype": dtype}
        self.down_own = down_projection(dim, width, **to)
        self.down_other = down_projection(other_dim, width, **to)
        self.query = nn.Linear(width, width, bias=False, **to)
        self.key = nn.Linear(width, width, bias=False, **to)
        self.value = nn.Linear(width, width, bias=False, **to)
        self.query_norm = nn.LayerNorm(width, **to) if qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(width, **to) if qk_norm else nn.Identity()
        self.out = nn.Linear(width, width, **to)
        self.norm = nn.LayerNorm(width, **to)
        theta = theta if conv == "cdc" else 0.0
        self.conv = None if conv is None else CentralDifferenceConv2d(width, width, theta=theta, bias=False, **to)
        self.dropout = nn.Dropout(dropout)
        self.up = UpProjection(width, dim, **to)
        self.scale = nn.Parameter(torch.ones((), **to)) if scale == "learned" else scale

    @property
    def confidence_of(self) -> tuple[Side, ...]:
        """Whose confidence the gate reads; :class:`CrossModal` hands over that much."""
        answering: Side = "own" if self.queries == "other" else "other"
        read: dict[Gate, set[Side]] = {
            "query": {self.queries},
            "key": {answering},
            "output": {"other"},
            "key+output": {answering, "other"},
        }
        return tuple(read[self.gate])

    def forward(
        self,
        own: Float[Tensor, "b n d"],
        other: Float[Tensor, "b k e"],
        confidence: Float[Tensor, "b k"] | None = None,
        own_confidence: Float[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Return the delta of the own tokens.

        `confidence` is that of the other's tokens, `own_confidence` that of the own. One that the gate does not read is
        an error; without the one that it reads, nothing is gated there. A token at confidence 0 is not even looked at,
        so that a NaN or an infinity in it cannot leak.
        """
        self._check(own, other, confidence, own_confidence)
        x = quick_gelu(self.down_own(own))
        y = quick_gelu(self.down_other(_without(other, confidence)))
        heard = _without(x, own_confidence)
        asking, answering = (y, heard) if self.queries == "other" else (heard, y)
        z = self.norm(x + self.out(self._attend(asking, answering, confidence, own_confidence)))
        if self.conv is not None and self.grid is not None:
            z = convolve_tokens(z, self.conv.kernel, self.grid, self.prefix)
        return self.up(self.dropout(quick_gelu(z)), self._rows(own, confidence))

    def _rows(self, own: Tensor, confidence: Tensor | None) -> Tensor | None:
        """What multiplies each row of the delta."""
        rows = None
        if "output" in self.gate and confidence is not None:
            rows = confidence if self.queries == "other" else _mean(confidence).expand(own.shape[:2])
        if isinstance(self.scale, Tensor) or self.scale != 1:
            rows = self.scale * (own.new_ones(own.shape[:2]) if rows is None else rows)
        return rows

    def _attend(
        self, asking: Tensor, answering: Tensor, confidence: Tensor | None, own_confidence: Tensor | None
    ) -> Tensor:
        tokens = self.query_norm(self.query(asking)), self.key_norm(self.key(answering)), self.value(answering)
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in tokens)
        of_asking, of_answering = confidence, own_confidence
        if self.queries == "own":
            of_asking, of_answering = of_answering, of_asking
        if self.gate == "query":
            attended = gated_attention(q, k, v, of_asking, "query")
        else:
            attended = gated_attention(q, k, v, None if self.gate == "output" else of_answering, "key")
        return attended.transpose(1, 2).flatten(2)

    def _check(self, own: Tensor, other: Tensor, confidence: Tensor | None, own_confidence: Tensor | None) -> None:
        expect_floating("own", own, "'b n d'", ndim=3)
        b, n, d = own.shape
        expect(d == self.dim, "own", f"tokens of width {self.dim}", own)
        expect_floating("other", other, "'b k e'", ndim=3)
        expect_shape("other", other, (b, n if self.queries == "other" else other.shape[1], self.other_dim))
        expect_device("other", other, own)
        if self.conv is not None and self.grid is not None:
            expect_grid("own", own, self.grid, self.prefix)
        sides = (("confidence", confidence, other, "other"), ("own_confidence", own_confidence, own, "own"))
        for argument, value, tokens, side in sides:
            if value is not None:
                nobody = f"None, since gate {self.gate!r} with queries {self.queries!r} does not read it"
                expect(side in self.confidence_of, argument, nobody, value)
                expect_floating(argument, value, "'b n'", ndim=2)
                expect_shape(argument, value, tuple(tokens.shape[:2]))
                expect_device(argument, value, own)


def _mean(confidence: Tensor) -> Tensor:
    """Mean over the tokens; 0 where there are none to be trusted."""
    return confidence.mean(-1, keepdim=True) if confidence.shape[-1] else confidence.new_zeros(len(confidence), 1)


def _without(tokens: Tensor, confidence: Tensor | None) -> Tensor:
    """The tokens with zeros in place of those at confidence 0."""
    return tokens if confidence is None else torch.where((confidence == 0)[..., None], 0.0, tokens)
