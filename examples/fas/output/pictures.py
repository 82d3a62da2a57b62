"""Every figure, from plain arrays to a file; matplotlib is imported in this room only.

``curves``, ``histograms`` and ``faces`` draw; ``style`` is how all of them look.
"""

from .curves import draw_conflicts, draw_convergence, draw_det, draw_roc
from .faces import draw_contact_sheet, draw_uncertainty, draw_worst
from .histograms import draw_scores, draw_scores_by_kind

__all__ = [
    "draw_conflicts",
    "draw_contact_sheet",
    "draw_convergence",
    "draw_det",
    "draw_roc",
    "draw_scores",
    "draw_scores_by_kind",
    "draw_uncertainty",
    "draw_worst",
]
