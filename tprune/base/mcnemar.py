"""McNemar's exact test (1947): whether two classifiers differ significantly on the same images.

Only discordant images count, which one of the two classifies correctly and the other does not; under the null
hypothesis each is equally likely either way. Integer arithmetic, so the result is exact; SciPy's `binomtest` agrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def p_value(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the two-sided p-value.

    one, other: whether each image was classified correctly. Raises ValueError for different numbers of images.
    """
    if len(one) != len(other):
        raise ValueError(f"answers to {len(one)} and to {len(other)} images cannot be compared")
    mine = sum(a and not b for a, b in zip(one, other, strict=True))
    theirs = sum(b and not a for a, b in zip(one, other, strict=True))
    tail = sum(math.comb(mine + theirs, few) for few in range(min(mine, theirs) + 1))
    return min(1.0, 2 * tail / 2 ** (mine + theirs))
