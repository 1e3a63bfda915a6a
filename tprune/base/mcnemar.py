"""McNemar's test (1947), exact: whether two classifiers differ on the same images by more than chance.

Only the images count that one of the two gets right and the other wrong: of equally good classifiers each would be
either's with probability 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def p_value(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return how likely two equally good classifiers differ this much or more, 0 to 1, two-sided.

    one, other: whether each of the same images was classified rightly. Raises ValueError for different numbers of them.
    """
    if len(one) != len(other):
        raise ValueError(f"answers to {len(one)} and to {len(other)} images cannot be compared")
    mine = sum(a and not b for a, b in zip(one, other, strict=True))
    theirs = sum(b and not a for a, b in zip(one, other, strict=True))
    tail = sum(math.comb(mine + theirs, few) for few in range(min(mine, theirs) + 1))
    return min(1.0, 2 * tail / 2 ** (mine + theirs))
