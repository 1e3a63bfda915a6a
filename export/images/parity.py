"""Compare the artefact of an image network with its PyTorch module: classes and logits."""

from __future__ import annotations

import numpy as np
import torch

from tprune.base import mcnemar
from tprune.base.errors import WorkFailed
from tprune.base.pixels import Pixels
from tprune.cnn.network import Network
from tprune.cnn.rounding import EightBit
from tprune.export.images.classifier import Bytes, Floats
from tprune.export.images.manifest import ImageCost, ImageParity

TOLERANCE = 1.0e-4
"""Largest logit difference, as a share of the largest logit, that fp32 arithmetic in another order explains."""
ROUNDED_TOLERANCE = 2.0e-2
"""The same for layers with 8-bit inputs: a difference in the last bit may change one of 256 levels."""


@torch.no_grad()
def answers(network: Network, pixels: Bytes) -> Floats:
    """Return PyTorch's logits of uint8 `pixels` (count, channels, height, width), one image at a time.

    Raises WorkFailed when one is no finite number.
    """
    module = network.module.eval()
    rows = [module(network.normalise(torch.from_numpy(one[None]))) for one in pixels]
    if not all(row.isfinite().all() for row in rows):
        raise WorkFailed(
            f"{network.net} has logits that are no finite numbers: it is damaged, or its training was lost"
        )
    return torch.cat(rows).float().numpy()


def tolerance(network: Network) -> float:
    """Return the legal difference of a logit, as a share of the largest one."""
    rounds = any(isinstance(layer, EightBit) for layer in network.module.modules())
    return ROUNDED_TOLERANCE if rounds else TOLERANCE


def compare(wanted: Floats, found: Floats, source: str, legal: float) -> ImageParity:
    """Compare the logits (images, classes) of two back ends on images from `source`.

    Raises WorkFailed unless every image has the same class and every logit is within `legal`, a share of the largest.
    """
    apart = np.abs(found - wanted).max(axis=1)
    identical = int((found.argmax(axis=1) == wanted.argmax(axis=1)).sum())
    most = legal * float(np.abs(wanted).max())
    if identical < len(wanted) or not float(apart.max()) <= most:
        raise WorkFailed(
            f"{identical} of {len(wanted)} images ({source}) have PyTorch's class, logits differ by up to "
            f"{apart.max():.2e} (at most {most:.1e} is legal), the most at image {int(apart.argmax()) + 1}"
        )
    return ImageParity(len(wanted), source, identical, float(apart.max()), legal)


def weigh(wanted: Floats, found: Floats, held: Pixels, most: float) -> tuple[ImageParity, ImageCost]:
    """Compare the logits (images, classes) of an int8 artefact with PyTorch in fp32; return parity and cost.

    Raises WorkFailed when accuracy on `held` falls by more than `most` percentage points, and when it is no better than
    chance before: such labels tell nothing.
    """
    classes = wanted.argmax(axis=1), found.argmax(axis=1)
    before, after = (one == held.labels for one in classes)
    cost = ImageCost(
        len(held), held.name, float(before.mean()), float(after.mean()),
        mcnemar.p_value(before.tolist(), after.tolist()), most,
    )  # fmt: skip
    if before.mean() <= 1 / wanted.shape[1]:
        raise WorkFailed(
            f"the network gets {100 * cost.accuracy_fp32:.2f} % of {len(held)} images ({held.name}) right, no more "
            "than by chance: it is not trained, or these labels are others; what int8 costs cannot be told"
        )
    drop = 100 * (int(before.sum()) - int(after.sum())) / len(held)
    if drop > most:
        fell = f"{100 * cost.accuracy_fp32:.2f} to {100 * cost.accuracy:.2f} % of {len(held)} images ({held.name})"
        raise WorkFailed(f"int8 costs {drop:.2f} points of accuracy, {fell}; at most {most:g} are allowed")
    same = int((classes[0] == classes[1]).sum())
    return ImageParity(len(held), held.name, same, float(np.abs(found - wanted).max()), None), cost
