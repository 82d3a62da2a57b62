"""Adapters: let modalities talk inside a frozen backbone, and keep the ones that cannot be trusted quiet.

Several modalities pass through one shared, frozen transformer, as one batch "(m b) n d". Alone they never meet before
the head. An adapter is a small trained module beside a block that turns the tokens of one modality and of another into
a *delta*; added to the block's output it carries information across. A modality that a covered lens or a new site has
made unreliable would mislead the others on the same road, so the adapter has a gate: a *confidence* in [0, 1] for each
token.

Parts, each of use without the others:

- :class:`GatedCrossAttention`: the U-Adapter of MMDG (arXiv 2402.19298, Eq. 4). Its up-projection starts at zero, so
  the model is at first exactly what it was. :func:`gated_attention` is the attention alone.
- :class:`CrossModal` and :func:`hub`: which modality listens to which (Eq. 1-3: all to RGB, RGB to all).
- :class:`Parallel`: put it beside a module of a backbone that others wrote; checkpoints keep fitting.
- :class:`Tap`: read a confidence off one module for use in another.
- :class:`CentralDifferenceConv2d`, :func:`central_difference`, :func:`convolve_tokens`: the spatial part, optional
  because it fixes a grid of patches.

Which gate? "query" is the paper's, an inverse temperature: at confidence 0 the other modality cannot steer anything,
but the own values are then mean-pooled, and between 0 and 1 the effect in the whole adapter is small. "output" removes
the delta in proportion and turns a modality off entirely: the choice when one may be missing or broken. "key" silences
single own tokens (a patch, a region), not a whole modality: a factor common to all keys cancels.

    tap = Tap(block.attn, dropout_confidence)
    cross = CrossModal(names, hub("rgb", names), partial(GatedCrossAttention, 768), confidence=tap)
    block.mlp = Parallel(block.mlp, cross)

Adapters belong to the branch that *receives*: name ``*cross.into(modality)`` among its parameters, or gradient surgery
misses them. They return a delta and never the sum, and no confidence is estimated in here.
"""

from balancekit.adapters._attention import GatedCrossAttention
from balancekit.adapters._cdc import CentralDifferenceConv2d, central_difference
from balancekit.adapters._gate import gated_attention
from balancekit.adapters._parallel import Parallel
from balancekit.adapters._tap import Tap
from balancekit.adapters._tokens import convolve_tokens
from balancekit.adapters._wiring import CrossModal, hub

__all__ = [
    "CentralDifferenceConv2d",
    "CrossModal",
    "GatedCrossAttention",
    "Parallel",
    "Tap",
    "central_difference",
    "convolve_tokens",
    "gated_attention",
    "hub",
]
