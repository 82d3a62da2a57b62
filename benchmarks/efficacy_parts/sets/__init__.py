"""Data with several modalities. A :class:`Multimodal` is whole; :meth:`Multimodal.split` draws who is tested.

satimage        two visible and two infrared bands of satellite patches; random patches are tested, which overlap
                with those of the training, so that numbers are optimistic
regions         the same patches; whole tiles of the picture are tested, and no pixel is shared
digits          handwritten digits in three views: pixels, Fourier coefficients, morphology
watch           accelerometer and gyroscope of a wrist; unseen people are tested
imbalance       SIMULATED: a modality that is easy and ends low, beside one that is hard and goes further
"""

from .digits import digits
from .multimodal import Multimodal, Split
from .satimage import regions, satimage
from .simulated import imbalance
from .watch import watch

SETS = {"digits": digits, "imbalance": imbalance, "satimage": satimage, "regions": regions, "watch": watch}

__all__ = ["SETS", "Multimodal", "Split", "digits", "imbalance", "regions", "satimage", "watch"]
