"""The losses of the room `losses`, equation by equation: python numbers, loops, nothing shared with the library."""

import itertools
import math


def softmax(row):
    total = sum(math.exp(v) for v in row)
    return [math.exp(v) / total for v in row]


def cross_entropy(rows, labels) -> float:
    return -sum(math.log(softmax(row)[y]) for row, y in zip(rows, labels, strict=True)) / len(rows)


# TCMax (arXiv 2602.13015)


def tcmax_pairs(audio, video, labels) -> tuple[float, float]:
    """As printed for two modalities, over every pair (j, k) and every class; and less log B alone."""
    samples, classes = len(audio), len(audio[0])
    total = 0.0
    for j in range(samples):
        for k in range(samples):
            for y in range(classes):
                total += math.exp(audio[j][y] + video[k][y])
    mean = 0.0
    for i in range(samples):
        mean += math.log(math.exp(audio[i][labels[i]] + video[i][labels[i]]) / total) / samples
    return -mean - math.log(samples**2 * classes), -mean - math.log(samples)


def tcmax_tuples(logits, labels) -> float:
    """All B^M combinations of samples, and every class."""
    samples, classes, modalities = len(labels), len(logits[0][0]), len(logits)
    total = 0.0
    for combination in itertools.product(range(samples), repeat=modalities):
        for y in range(classes):
            total += math.exp(sum(o[j][y] for o, j in zip(logits, combination, strict=True)))
    mean = sum(math.log(math.exp(sum(o[i][labels[i]] for o in logits)) / total) for i in range(samples)) / samples
    return -mean - math.log(samples**modalities * classes)


# MMCosine (arXiv 2303.05338)


def cosine_logits(feature, weight, scale):
    def cosine(x, y) -> float:
        dot = sum(a * b for a, b in zip(x, y, strict=True))
        return dot / (math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y)))

    return [[scale * cosine(z, w) for w in weight] for z in feature]


# CML (arXiv 2306.01265)


def ranking_two(audio, video, both) -> float:
    """As printed for two modalities: S is audio or video, T is both."""
    total = 0.0
    for a, v, av in zip(audio, video, both, strict=True):
        total += max(0.0, a - av) + max(0.0, v - av)
    return total / len(both)


def ranking(confidences, counts, steps) -> float:
    """Every S ⊂ T with at most `steps` modalities more in T; `counts` by T, absent for all samples."""
    samples = len(next(iter(confidences.values())))
    total = 0.0
    for i in range(samples):
        for s, conf_s in confidences.items():
            for t, conf_t in confidences.items():
                inside = all(name in t for name in s) and len(s) < len(t) <= len(s) + steps
                if inside and (t not in counts or counts[t][i]):
                    total += max(0.0, conf_s[i] - conf_t[i])
    return total / samples


# UMT (arXiv 2106.11059), G²D (arXiv 2506.21514)


def mean_squared_error(rows, targets) -> float:
    terms = []
    for row, target in zip(rows, targets, strict=True):
        for v, t in zip(row, target, strict=True):
            terms.append((v - t) ** 2)
    return sum(terms) / len(terms)


def divergence(teacher, student) -> float:
    """KL(teacher ‖ student), averaged over the samples."""
    total = 0.0
    for t, s in zip(teacher, student, strict=True):
        for p, q in zip(softmax(t), softmax(s), strict=True):
            total += p * math.log(p / q)
    return total / len(teacher)


# G-Blending (arXiv 1905.12681)


def gblend(train_before, train_after, val_before, val_after, floor):
    worth = []
    for t0, t1, v0, v1 in zip(train_before, train_after, val_before, val_after, strict=True):
        overfitting = (v1 - t1) - (v0 - t0)
        if overfitting < 1e-4:
            overfitting = 1e-4
        worth.append(abs(v0 - v1) / (overfitting**2 + floor))
    return [w / sum(worth) for w in worth]


# LFM (NeurIPS 2024)


def lfm_two(audio, video, labels, alpha) -> float:
    """As printed for two modalities; JS as ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½ (p + q)."""
    mean = [[0.5 * a + 0.5 * v for a, v in zip(x, y, strict=True)] for x, y in zip(audio, video, strict=True)]
    js = 0.0
    for x, y in zip(audio, video, strict=True):
        for p, q in zip(softmax(x), softmax(y), strict=True):
            m = (p + q) / 2
            js += 0.5 * p * math.log(p / m) + 0.5 * q * math.log(q / m)
    return 2 * (alpha * cross_entropy(mean, labels) + (1 - alpha) * js / len(labels))


def lfm_many(logits, labels, alpha) -> float:
    """JS as the entropy of the mean less the mean entropy."""

    def entropy(p) -> float:
        return -sum(v * math.log(v) for v in p)

    modalities, samples = len(logits), len(labels)
    mean = [[sum(column) / modalities for column in zip(*(o[i] for o in logits), strict=True)] for i in range(samples)]
    js = 0.0
    for i in range(samples):
        each = [softmax(o[i]) for o in logits]
        js += entropy([sum(column) / modalities for column in zip(*each, strict=True)])
        js -= sum(entropy(p) for p in each) / modalities
    return 2 * (alpha * cross_entropy(mean, labels) + (1 - alpha) * js / samples)


def decoupled_gradients(audio, video, head, heads, labels, alpha):
    """DGL with linear encoders' features as the leaves: rows of dL/dz by modality, and dL/d head.

    The fused head sees the concatenation and gives the features nothing; each feature hears from its own head only.
    """
    b, features = len(labels), (audio, video)
    unimodal = []
    for rows, weight in zip(features, heads, strict=True):
        gradient = []
        for z, y in zip(rows, labels, strict=True):
            p = softmax([sum(w * x for w, x in zip(row, z, strict=True)) for row in weight])
            error = [alpha * (q - (k == y)) / b for k, q in enumerate(p)]
            gradient.append([sum(e * row[d] for e, row in zip(error, weight, strict=True)) for d in range(len(z))])
        unimodal.append(gradient)
    fused = [[0.0] * len(head[0]) for _ in head]
    for i, y in enumerate(labels):
        z = audio[i] + video[i]
        p = softmax([sum(w * x for w, x in zip(row, z, strict=True)) for row in head])
        for k, q in enumerate(p):
            for d, x in enumerate(z):
                fused[k][d] += (q - (k == y)) * x / b
    return unimodal, fused
