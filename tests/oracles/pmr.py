"""PMR's coefficients (arXiv 2211.07089, Eq. 8, 11 and 13), as printed for two modalities and by loops for more."""


def clip(x: float) -> float:
    return min(max(x, 0.0), 1.0)


def two_modalities(s0: float, s1: float) -> tuple[list[float], list[float]]:
    """Eq. 11 for β and γ; Eq. 10 puts β and γ on PCE of 0 and 1, Eq. 13 puts γ and β on the entropy of 0 and 1."""
    ratio = s0 / s1
    if ratio < 1:
        beta, gamma = clip(1 / ratio - 1), 0.0
    else:
        beta, gamma = 0.0, clip(ratio - 1)
    return [beta, gamma], [gamma, beta]


def many_modalities(scores: list[float]) -> tuple[list[float], list[float]]:
    pce = [clip(max(scores) / s - 1) for s in scores]
    per = [clip(s / min(scores) - 1) for s in scores]
    return pce, per
