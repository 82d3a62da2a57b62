"""SSDG (Jia et al., CVPR 2020), term by term in float64."""

import math


def reversal_strength(step: float, total: float, k: float = 10.0) -> float:
    return 2.0 / (1.0 + math.exp(-k * step / total)) - 1.0


def single_side_adversarial(logits, domain, live) -> float:
    """L_Ada: −mean over the genuine samples of Σ_n 1[n = y] log D(G(x))_n."""
    terms = []
    for row, y, genuine in zip(logits, domain, live, strict=True):
        if not genuine:
            continue
        total = sum(math.exp(v) for v in row)
        terms.append(-sum((1.0 if n == y else 0.0) * math.log(math.exp(v) / total) for n, v in enumerate(row)))
    return sum(terms) / len(terms) if terms else 0.0


def asymmetric_triplet(features, labels, margin: float, squared: bool) -> float:
    """Every anchor, positive and negative in turn; the mean of the positive terms."""

    def distance(x, y) -> float:
        total = 0.0
        for a, b in zip(x, y, strict=True):
            total += (a - b) ** 2
        return total if squared else math.sqrt(total)

    terms = []
    n = len(features)
    for a in range(n):
        for p in range(n):
            if p == a or labels[p] != labels[a]:
                continue
            for q in range(n):
                if labels[q] == labels[a]:
                    continue
                term = distance(features[a], features[p]) - distance(features[a], features[q]) + margin
                if term > 0:
                    terms.append(term)
    return sum(terms) / len(terms) if terms else 0.0


def normalised(row, released: bool) -> list[float]:
    length = math.sqrt(sum(v * v for v in row))
    return [v / (math.sqrt(2.0 * length) if released else length) for v in row]
