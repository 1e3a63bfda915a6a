"""Statistics of latencies in nanoseconds: quantiles, and speed-ups with a paired bootstrap interval. NumPy only.

    measured = speedup(dense_ns, pruned_ns)  # both shaped (blocks, sentences)

The bootstrap resamples blocks and sentences independently, with the same draw for both sides; `scipy.stats.bootstrap`
resamples along one axis only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

P99_NEEDS = 100  # samples; with fewer the 99th percentile is about the maximum


@dataclass(frozen=True)
class Summary:
    """Quantiles of latencies in nanoseconds; `p99` is None below 100 samples."""

    count: int
    mean: float
    median: float
    p90: float
    p99: float | None


@dataclass(frozen=True)
class Speedup:
    """Speed-up of B over A with its 95 % confidence interval."""

    ratio: float
    low: float
    high: float


def summarise(samples_ns: Sequence[int] | NDArray[np.int64]) -> Summary:
    """Return mean, median, p90 and (from 100 samples on) p99 of `samples_ns`; quantiles interpolate linearly."""
    samples = np.asarray(samples_ns, dtype=np.float64).ravel()
    if samples.size == 0:
        raise ValueError("summarise: there is no sample")
    return Summary(
        count=int(samples.size),
        mean=float(samples.mean()),
        median=float(np.quantile(samples, 0.5)),
        p90=float(np.quantile(samples, 0.9)),
        p99=float(np.quantile(samples, 0.99)) if samples.size >= P99_NEEDS else None,
    )


def speedup(base_ns: ArrayLike, other_ns: ArrayLike, *, draws: int = 2000, seed: int = 0) -> Speedup:
    """Return the total time of `base_ns` over the total time of `other_ns`, with a 95 % bootstrap interval.

    Both arrays are (blocks, sentences) in nanoseconds; entry [k, i] of both is the same sentence in blocks that ran
    back to back. The statistic is the ratio of totals, because that is the time a user waits: sentences are weighted
    by their duration. Sentences and blocks are resampled with replacement, independently, with the same draw for both
    sides: effects of a long sentence or a slow minute on both cancel, and drift between blocks widens the interval.
    The ends are the 2.5 and 97.5 percentiles of `draws` ratios.
    """
    base, other = np.asarray(base_ns, dtype=np.float64), np.asarray(other_ns, dtype=np.float64)
    if base.ndim != 2 or base.shape != other.shape or base.size == 0:
        raise ValueError(f"speedup: shapes {base.shape} and {other.shape}; both must be the same (blocks, sentences)")
    if (base <= 0).any() or (other <= 0).any():
        raise ValueError("speedup: every time must be above 0 ns")
    blocks, sentences = base.shape
    random = np.random.default_rng(seed)
    by_sentence = random.multinomial(sentences, np.full(sentences, 1 / sentences), size=draws)  # (draws, sentences)
    by_block = random.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)  # (draws, blocks)
    totals = [((by_sentence @ times.T) * by_block).sum(axis=1) for times in (base, other)]  # (draws,) each
    low, high = np.quantile(totals[0] / totals[1], [0.025, 0.975])
    return Speedup(ratio=float(base.sum() / other.sum()), low=float(low), high=float(high))


@dataclass(frozen=True)
class Median:
    """A median with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def median(samples_ns: ArrayLike, *, draws: int = 1000, seed: int = 0) -> Median:
    """Return the median of latencies shaped (blocks, sentences), in nanoseconds, with a 95 % bootstrap interval.

    Sentences and blocks are resampled independently, as in `speedup`.
    """
    samples = np.asarray(samples_ns, dtype=np.float64)
    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(f"median: shape {samples.shape}; it must be (blocks, sentences)")
    blocks, sentences = samples.shape
    random = np.random.default_rng(seed)
    drawn = [
        np.median(samples[random.integers(blocks, size=(blocks, 1)), random.integers(sentences, size=sentences)])
        for _ in range(draws)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Median(value=float(np.median(samples)), low=float(low), high=float(high))
