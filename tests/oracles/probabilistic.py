"""The divergence of a normal distribution from the standard one, by integration."""

import numpy as np


def standard_normal_divergence(mean: float, std: float) -> float:
    x = np.linspace(mean - 12 * std, mean + 12 * std, 200_001)
    log_p = -((x - mean) ** 2) / (2 * std**2) - np.log(std) - 0.5 * np.log(2 * np.pi)
    log_q = -(x**2) / 2 - 0.5 * np.log(2 * np.pi)
    return float(np.trapezoid(np.exp(log_p) * (log_p - log_q), x))
