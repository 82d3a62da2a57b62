"""Adapters: let modalities talk inside a frozen backbone, and keep the ones that cannot be trusted quiet.

Several modalities pass through one shared, frozen transformer, as one batch "(m b) n d". Alone they never meet before
the head. An adapter is a small trained module beside a block that turns the tokens of one modality and of another into
a *delta*; added to the block's output it carries information across. A modality that a covered lens or a new site has
made unreliable would mislead the others on the same road, so the adapter has a gate: a *confidence* in [0, 1] for each
token. All up-projections start at zero: the model is at first exactly what it was.

What adapts (each of use without the others; they return a delta and never the sum, and estimate no confidence):

- :class:`GatedCrossAttention`: one modality hears another; the U-Adapter of MMDG (arXiv 2402.19298, Eq. 4).
  :func:`gated_attention` is its attention alone.
- :class:`CrossModal` with :func:`hub` (Eq. 1-3), :func:`ring`, :func:`complete` or your own edges: who hears whom.
- :class:`AMA`: all modalities as one sequence, each with a weight per sample that can be read out.
- :class:`ConvAdapter`, :class:`CDCAdapter`: one modality alone, a convolution over its patches.
  :class:`CentralDifferenceConv2d`, :func:`central_difference`, :func:`convolve_tokens` are their parts.

How it gets into a backbone that others wrote, and out again:

- :class:`Parallel`: beside a module, or beside a stretch of a block (``input_of=``); checkpoints keep fitting.
- :class:`Tap`: read a confidence off one module for use in another.
- :func:`train_only`, :func:`trainable_table`: freeze the rest, and see what trains.
- :func:`adapter_state`, :func:`load_adapter_state`: the adapters' file beside a backbone that everybody has.
- :func:`missing`: samples that lack a modality. :func:`remove`: the model as it was.

    tap = Tap(block.attn, dropout_confidence)
    cross = CrossModal(names, hub("rgb", names), partial(GatedCrossAttention, 768), confidence=tap)
    block.mlp = Parallel(block.mlp, cross)
    print(train_only(model, cross, model.head))

Which gate? "query" is the paper's, an inverse temperature: at confidence 0 the other modality cannot steer anything,
but the own values are then mean-pooled, and between 0 and 1 the effect in the whole adapter is small. "output" removes
the delta in proportion and turns a modality off entirely: the choice when one may be broken. "key" silences single
tokens among those that answer (a patch, a region), not a whole modality: a factor common to all keys cancels.
"key+output" does both.

Adapters belong to the branch that *receives*: name ``*cross.into(modality)`` among its parameters, or gradient surgery
misses them.
"""

from balancekit.adapters._ama import AMA
from balancekit.adapters._attention import GatedCrossAttention
from balancekit.adapters._cdc import CentralDifferenceConv2d, central_difference
from balancekit.adapters._cdc_adapter import CDCAdapter
from balancekit.adapters._conv_adapter import ConvAdapter
from balancekit.adapters._gate import gated_attention
from balancekit.adapters._missing import missing
from balancekit.adapters._parallel import Parallel
from balancekit.adapters._remove import remove
from balancekit.adapters._state import adapter_state, load_adapter_state
from balancekit.adapters._tap import Tap
from balancekit.adapters._tokens import convolve_tokens
from balancekit.adapters._topology import complete, hub, ring
from balancekit.adapters._trainable import Trainable, train_only, trainable_table
from balancekit.adapters._wiring import CrossModal

__all__ = [
    "AMA",
    "CDCAdapter",
    "CentralDifferenceConv2d",
    "ConvAdapter",
    "CrossModal",
    "GatedCrossAttention",
    "Parallel",
    "Tap",
    "Trainable",
    "adapter_state",
    "central_difference",
    "complete",
    "convolve_tokens",
    "gated_attention",
    "hub",
    "load_adapter_state",
    "missing",
    "remove",
    "ring",
    "train_only",
    "trainable_table",
]
