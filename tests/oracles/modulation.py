"""Coefficients of gradient modulation, by loops over python numbers, as each paper prints them."""

import math


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    e = [math.exp(x - top) for x in row]
    return [x / sum(e) for x in e]


def true_class(logits: list[list[float]], labels: list[int]) -> float:
    """OGM-GE Eq. 8: a sum over the batch."""
    return sum(softmax(row)[y] for row, y in zip(logits, labels, strict=True))


def cross_entropy(logits: list[list[float]], labels: list[int]) -> float:
    return sum(-math.log(softmax(row)[y]) for row, y in zip(logits, labels, strict=True)) / len(labels)


def entropy(logits: list[list[float]]) -> float:
    return sum(-sum(p * math.log(p) for p in softmax(row)) for row in logits) / len(logits)


def ogm_two(s: list[float], alpha: float) -> list[float]:
    """Eq. 9 and 10 for two modalities."""
    k = []
    for own, other in ((s[0], s[1]), (s[1], s[0])):
        rho = own / other
        k.append(1 - math.tanh(alpha * max(rho, 0)) if rho > 1 else 1.0)
    return k


def ogm_pairwise(s: list[float], alpha: float) -> list[float]:
    """Any number: the mean of the pairwise ratios."""
    k = []
    for m in range(len(s)):
        rho = sum(s[m] / s[j] for j in range(len(s)) if j != m) / (len(s) - 1)
        k.append(1 - math.tanh(alpha * rho) if rho > 1 else 1.0)
    return k


def mlb(s: list[float], alpha: float, beta: float | None = None) -> list[float]:
    """Others over own."""
    k = []
    for m in range(len(s)):
        rho = sum(s[j] for j in range(len(s)) if j != m) / (len(s) - 1) / s[m]
        factor = beta - 1 if beta is not None and rho > 1 else 1.0
        k.append(1 + factor * math.tanh(alpha * (rho - 1)))
    return k


def mlb_regression(errors: list[float], alpha: float) -> list[float]:
    """Own over others: a larger error means weak."""
    k = []
    for m in range(len(errors)):
        rho = errors[m] / (sum(errors[j] for j in range(len(errors)) if j != m) / (len(errors) - 1))
        k.append(1 + math.tanh(alpha * (rho - 1)))
    return k


def agm_two(history: list[list[float]], alpha: float, cap: float = 10.0) -> list[float]:
    """The last step's coefficients; `history` holds (s_a, s_v) of all steps."""
    s_a, s_v = history[-1]
    mean_a, mean_v = (sum(step[m] for step in history) / len(history) for m in (0, 1))
    r_a, r_v = math.exp(s_v - s_a), math.exp(s_a - s_v)
    tau_a, tau_v = math.exp(mean_v - mean_a), math.exp(mean_a - mean_v)
    return [math.exp(alpha * min(tau_a - r_a, cap)), math.exp(alpha * min(tau_v - r_v, cap))]


def agm_three_ratio(s: list[float]) -> list[float]:
    """The released form for three: exp(3/2 (mean − own))."""
    mean = sum(s) / 3
    return [math.exp(1.5 * (mean - x)) for x in s]


def cggm(gains: list[float], rho: float) -> list[float]:
    """As printed."""
    total = sum(gains) + 1e-8
    return [rho * (total - d) / total for d in gains]


def arl_two(h: list[float], magnitude: list[float], temperature: float) -> list[float]:
    share = [max(x / sum(h), 0.3) for x in h]
    w = [(1 / x) / sum(1 / y for y in share) for x in share]
    c = [x / sum(magnitude) for x in magnitude]
    return [1 + x for x in softmax([temperature * c[1] * w[0], temperature * c[0] * w[1]])]


def opm_two(s: list[float], base: float, strength: float) -> list[float]:
    q = []
    for own, other in ((s[0], s[1]), (s[1], s[0])):
        r = math.tanh(max(own / other - 1, 0))
        q.append(min(max(base * (1 + strength * r), 0), 1) if r > 0 else 0.0)
    return q


def miles_two(accuracy: float, alone: list[float], threshold: float, factor: float) -> list[float]:
    """u_A = (A − A_B) / A; the dominant one of a gap above the threshold."""
    u_a, u_b = (accuracy - alone[1]) / accuracy, (accuracy - alone[0]) / accuracy
    if abs(u_a - u_b) <= threshold:
        return [1.0, 1.0]
    return [factor, 1.0] if u_a > u_b else [1.0, factor]


def mslr(factors: list[float], history: list[list[float]]) -> list[float]:
    last = history[-5:]
    return [f * history[-1][m] / (sum(row[m] for row in last) / len(last)) for m, f in enumerate(factors)]


def epistemic_two(u: list[float], rate: float) -> list[float]:
    return [math.exp(-rate * max(u[0] - u[1], 0)), math.exp(-rate * max(u[1] - u[0], 0))]


def smp(scores: list[float]) -> list[float]:
    """The modality with the more confident teacher does not learn."""
    return [0.0 if all(s > x for j, x in enumerate(scores) if j != m) else 1.0 for m, s in enumerate(scores)]


def pdmp(performance: list[float], gamma_p: float, gamma_r: float) -> list[float]:
    lead = max(range(len(performance)), key=lambda m: performance[m])
    return [gamma_p if m == lead else gamma_r for m in range(len(performance))]
