"""The methods, each a training: what is changed of plain joint training, at its default, and at another strength."""

from typing import Any, NamedTuple

from .joint import Ensemble, Joint, JointAndUnimodal
from .losses import CML, DGL, G2D, LFM, PMR, UMT, Cosine, GBlend, TCMax
from .modulation import (
    AGM,
    ARL,
    CGGM,
    MILES,
    MLB,
    MSLR,
    OGM,
    OGMGE,
    OPM,
    PDMP,
    SMP,
    Epistemic,
)
from .sampling import SMV, Relearn, Remix
from .surgery import Pareto, Surgery


class Choice(NamedTuple):
    """How a method is trained at its documented default, or one of ours where it has none, and at another strength."""

    make: Any
    default: dict[str, Any]
    other: dict[str, Any] | None


BASELINES = {
    "joint": Choice(Joint, {}, None),
    "joint + unimodal": Choice(JointAndUnimodal, {"weight": 1.0}, {"weight": 0.3}),
    "ensemble": Choice(Ensemble, {}, None),
}
METHODS = {
    "OGM": Choice(OGM, {"alpha": 0.8}, {"alpha": 0.1}),
    "OGM-GE": Choice(OGMGE, {"alpha": 0.8}, {"alpha": 0.1}),
    "OPM": Choice(OPM, {"base": 0.5}, {"base": 0.25}),
    "AGM": Choice(AGM, {"alpha": 1.0}, {"alpha": 0.5}),
    "MLB": Choice(MLB, {"alpha": 0.8}, {"alpha": 0.4}),
    "CGGM, magnitude": Choice(CGGM, {"scale": 1.3}, {"scale": 1.0}),
    "ARL": Choice(ARL, {"weight": 4.0}, {"weight": 1.0}),
    "PDMP": Choice(PDMP, {"dominant": 1.5, "rest": 0.5}, {"dominant": 1.2, "rest": 0.8}),
    "MILES": Choice(MILES, {"threshold": 0.2}, {"threshold": 0.05}),
    "MSLR": Choice(MSLR, {"spread": 0.1}, {"spread": 0.5}),
    "SMP of G²D": Choice(SMP, {"share": 0.3}, {"share": 0.6}),
    "epistemic": Choice(Epistemic, {"rate": 1.0}, {"rate": 3.0}),
    "PMR": Choice(PMR, {"alpha": 1.0}, {"alpha": 2.0}),
    "TCMax": Choice(TCMax, {}, None),
    "MMCosine": Choice(Cosine, {"scale": 10.0}, {"scale": 5.0}),
    "CML": Choice(CML, {"weight": 0.1}, {"weight": 1.0}),
    "UMT": Choice(UMT, {"weight": 10.0}, {"weight": 64.0}),
    "G²D": Choice(G2D, {"weight": 1.0}, {"weight": 3.0}),
    "DGL": Choice(DGL, {"weight": 4.0}, {"weight": 1.0}),
    "G-Blend": Choice(GBlend, {}, None),
    "LFM": Choice(LFM, {"start": 0.95}, {"start": 0.05}),
    "SMV": Choice(SMV, {"by": "sample"}, {"by": "modality"}),
    "Data Remixing": Choice(Remix, {"warm": 0.1}, {"warm": 0.5}),
    "D&R": Choice(Relearn, {"rate": 3.0}, {"rate": 1.0}),
    "ReGrad": Choice(Surgery, {"weight": 0.3}, {"weight": 1.0}),
    "MMPareto": Choice(Pareto, {"weight": 1.0}, {"weight": 0.3}),
}
SYSTEMS = BASELINES | METHODS
