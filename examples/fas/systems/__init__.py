"""Systems, each one file of wiring over the library's parts.

======================  ==============================================================================================
``base``                what a system is; the ViT baseline, one stream a modality and a head on all features
``ama``                 ViT + AMA: all patches in one sequence
``joint``               joint and unimodal losses
``modality_dropout``    some inputs missing in training
``ssdg``                SSDG, with the paper's and with the released normalisation
``mmdg``                MMDG, part by part; ``cases``, its ablation of ReGrad
``repaired``            MMDG with a real uncertainty (``sensors``) and a gate that shuts
======================  ==============================================================================================

"late mean", the mean log-odds of three systems that see one modality each, needs no file: the scorer makes it.
"""

from collections.abc import Callable
from functools import partial

from .ama import vit_ama
from .base import Fusion, Output, Setup, System
from .joint import Joint
from .mmdg import MMDG, Parts
from .modality_dropout import ModalityDropout
from .repaired import Repaired
from .ssdg import SSDG


def vit(setup: Setup) -> System:
    """The baseline: streams, concatenation, cross-entropy."""
    return System(Fusion(setup.backbone.streams(setup.channels)))


def alone(modality: str, setup: Setup) -> System:
    """The baseline with one modality."""
    return vit(setup._replace(channels={modality: setup.channels[modality]}))


ALONE = {"RGB alone": "rgb", "depth alone": "depth", "infrared alone": "infrared"}
LATE_MEAN = "late mean"
SYSTEMS: dict[str, Callable[[Setup], System]] = {
    **{name: partial(alone, modality) for name, modality in ALONE.items()},
    "ViT": vit,
    "ViT + AMA": vit_ama,
    "joint + unimodal": Joint,
    "modality dropout": ModalityDropout,
    "SSDG, paper": partial(SSDG, released=False),
    "SSDG, released": partial(SSDG, released=True),
    "MMDG": MMDG,
    "MMDG repaired": Repaired,
}
ABLATION: dict[str, Callable[[Setup], System]] = {
    "without U-Adapter": partial(MMDG, parts=Parts(adapter=False)),
    "without uncertainty": partial(MMDG, parts=Parts(uncertainty=False)),
    "without SSP": partial(MMDG, parts=Parts(ssp=False)),
    "without ReGrad": partial(MMDG, parts=Parts(regrad="none")),
    "ReGrad, conflict only": partial(MMDG, parts=Parts(regrad="conflict")),
    "ReGrad, aligned only": partial(MMDG, parts=Parts(regrad="aligned")),
}

__all__ = ["ABLATION", "ALONE", "LATE_MEAN", "SYSTEMS", "Output", "Setup", "System"]
