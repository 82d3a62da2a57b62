"""What a classifier could cheat by: the outline, the background, a handful of numbers of the whole image.

Each is a table of a few numbers a sample and its worth the area under the ROC curve of a classifier that knows nothing
else: the larger one of logistic regression and of boosted trees, on people that it was not fitted to.
"""

from itertools import product

import numpy as np
from scipy.ndimage import laplace
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fas.samples import MODALITIES, Samples

Array = np.ndarray


def statistics(image: Array) -> Array:
    """Six numbers of each image "b c h w", "b 6".

    Of the mean over channels: mean, deviation, 5 % and 95 % quantile, and median absolute Laplacian. The sixth is the
    mean saturation (largest less smallest channel) of a colour image and the share of black pixels of a grey one.
    """
    x = image.astype(np.float32)
    grey = x.mean(1)
    sixth = (x.max(1) - x.min(1)).mean((1, 2)) if x.shape[1] > 1 else (grey == 0).mean((1, 2))
    rough = np.median(np.abs(laplace(grey, axes=(1, 2))), (1, 2))
    dark, bright = np.quantile(grey, (0.05, 0.95), axis=(1, 2))
    return np.stack([grey.mean((1, 2)), grey.std((1, 2)), dark, bright, rough, sixth], 1)


def outline(samples: Samples) -> Array:
    """Of what is not black in colour: area, centre, second moments and bounding box, "b 10", in pixels.

    Where nothing is cut away this is the frame, and tells only of corruption.
    """
    mask = (samples.rgb.numpy() > 0).any(1)
    y, x = (np.arange(n, dtype=np.float32) for n in mask.shape[1:])
    columns, rows = mask.sum(1), mask.sum(2)
    area = np.maximum(mask.sum((1, 2)), 1)
    cx, cy = columns @ x / area, rows @ y / area
    spread = [columns @ x**2 / area - cx**2, rows @ y**2 / area - cy**2]
    spread.append(((mask * np.outer(y, x)).sum((1, 2)) / area) - cx * cy)
    ends = [edge for line in (columns > 0, rows > 0) for edge in (line.argmax(1), line[:, ::-1].argmax(1))]
    return np.stack([area, cx, cy, *spread, *ends], 1).astype(np.float32)


def occlusion(samples: Samples) -> Array:
    """How far the depth image reaches: its deviation and how much of it is black or in the darkest tenth, "b 3"."""
    depth = samples.depth.numpy()[:, 0].astype(np.float32)
    return np.stack([depth.std((1, 2)), (depth == 0).mean((1, 2)), (depth < 26).mean((1, 2))], 1)


def shortcut_auc(features: Array, live: Array, identity: Array, *, seed: int) -> float:
    """How well `features` "b f" tell live "b" on people that the classifier was not fitted to.

    The people are split in two halves; each half is fitted on once and judged once. Both classes weigh the same.
    """
    people = np.random.default_rng(seed).permutation(np.unique(identity))
    first = np.isin(identity, people[: len(people) // 2])
    share = np.where(live, 0.5 / live.mean(), 0.5 / (1 - live.mean()))
    areas = []
    for half, linear in product((first, ~first), (True, False)):
        if linear:
            model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
            model.fit(features[half], live[half])
        else:
            model = GradientBoostingClassifier(n_estimators=60, max_depth=3, subsample=0.7, random_state=seed)
            model.fit(features[half], live[half], share[half])
        areas.append(roc_auc_score(live[~half], model.predict_proba(features[~half])[:, 1]))
    return max(np.mean(areas[0::2]), np.mean(areas[1::2])).item()


def shortcuts(samples: Samples, *, seed: int) -> dict[str, float]:
    """The area under the curve of every shortcut within one domain."""
    tables = {"outline": outline(samples), "occlusion": occlusion(samples)}
    tables |= {f"six numbers of {m}": statistics(getattr(samples, m).numpy()) for m in MODALITIES}
    live, identity = samples.live.numpy(), samples.identity.numpy()
    return {name: shortcut_auc(table, live, identity, seed=seed) for name, table in tables.items()}
