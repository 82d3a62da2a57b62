"""Generated faces in four domains, for who has no licensed data. :func:`make_split` draws one split of one domain.

``profiles`` (the four sites), ``faces`` (shape), ``materials``, ``scene`` (what stands before the camera), ``sensors``,
``corruption``; ``draws`` and ``arrays``, their tools; ``split``, all of them together. Whether they are fit to learn
from: ``shortcuts``, ``probe``, ``acceptance``, ``judgement``, of which drawing needs none.
"""

from .split import COUNTS, IDENTITIES, VERSION, cached_split, make_split

__all__ = ["COUNTS", "IDENTITIES", "VERSION", "cached_split", "make_split"]
