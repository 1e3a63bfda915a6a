"""Does the artefact of an image network answer like the PyTorch module it came from: same classes, and how close?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cnn.network import Network
from export import image_runtime
from export.image_manifest import ImageParity
from tprune.errors import WorkFailed

TOLERANCE = 1.0e-3
"""Largest difference of a logit, in shares of the largest one (at least 1), that fp32 in another order explains."""


def check(network: Network, folder: Path, pixels: image_runtime.Bytes, source: str, *, threads: int = 1) -> ImageParity:
    """Classify uint8 `pixels` (count, channels, height, width), which are from `source`, with both, one at a time.

    Raises WorkFailed unless every image has the same class and every logit is within `TOLERANCE`.
    """
    wanted = _logits(network, pixels)
    found = image_runtime.open(folder, threads).logits(pixels)
    if not np.isfinite(wanted).all():
        raise WorkFailed(
            f"{network.net} has logits that are no finite numbers: it is damaged, or was trained to nothing"
        )
    apart = np.abs(found - wanted).max(axis=1)
    identical = int((found.argmax(axis=1) == wanted.argmax(axis=1)).sum())
    most = TOLERANCE * max(1.0, float(np.abs(wanted).max()))
    if identical < len(pixels) or not float(apart.max()) <= most:
        raise WorkFailed(
            f"{identical} of {len(pixels)} images ({source}) have PyTorch's class, logits differ by up to "
            f"{apart.max():.2e} (at most {most:.0e} is legal), the most at image {int(apart.argmax()) + 1}"
        )
    return ImageParity(len(pixels), source, identical, float(apart.max()))


@torch.no_grad()
def _logits(network: Network, pixels: image_runtime.Bytes) -> image_runtime.Floats:
    module = network.module.eval()
    return torch.cat([module(network.normalise(torch.from_numpy(one[None]))) for one in pixels]).float().numpy()
