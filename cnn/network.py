"""A trained image network in memory and on disk: the layers, how its images are scaled, and what was done to it.

A folder holds `network.json` (structure and history) and `model.safetensors` (weights): no pickle, and nothing of the
command that trained it is needed to load it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tprune.base import stamp
from tprune.base.errors import BadInput
from tprune.cnn import nets
from tprune.cnn.images import Images
from tprune.cnn.structure import describe, rebuild

KIND = "network"
DOCUMENT, WEIGHTS = "network.json", "model.safetensors"


@dataclass
class Network:
    """An image classifier: `module` maps normalised images (batch, channels, height, width) to logits."""

    module: nn.Module
    net: str  # its name in `nets.NETS`, or what the caller calls it
    classes: tuple[str, ...]
    image: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # per channel, on the scale 0 to 1
    std: tuple[float, ...]
    history: list[dict[str, Any]] = field(default_factory=list)  # what was done to it, oldest first

    def __post_init__(self) -> None:
        if len(self.image) != 3 or not len(self.mean) == len(self.std) == self.image[0]:
            means = f"{len(self.mean)} means and {len(self.std)} deviations"
            raise BadInput(f"{self.net}: an image of {self.image} (channels, height, width) and {means} do not fit")

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels (batch, channels, height, width) as the module wants them, channels last."""
        mean, std = (torch.tensor(one, device=pixels.device)[:, None, None] for one in (self.mean, self.std))
        return ((pixels / 255.0 - mean) / std).contiguous(memory_format=torch.channels_last)

    def check(self, images: Images) -> None:
        """Raise BadInput unless the images are of the size and the classes that the network was made for."""
        if images.shape != self.image:
            here, mine = (" x ".join(map(str, one)) for one in (images.shape, self.image))
            raise BadInput(f"{images.name}: images are {here} (channels, height, width); {self.net} takes {mine}")
        if len(images.classes) > len(self.classes) or int(images.labels.max()) >= len(self.classes):
            raise BadInput(f"{images.name} has {len(images.classes)} classes; {self.net} knows {len(self.classes)}")

    @property
    def id(self) -> str:
        """Return the first 16 hex digits of the SHA-256 over the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def fresh(net: str, images: Images, *, seed: int = 0) -> Network:
    """Return a named network with random weights for `images`, scaled as the table of networks says."""
    row = nets.named(net)
    torch.manual_seed(seed)
    as_they_are = (0.0,) * row.image[0], (1.0,) * row.image[0]
    network = Network(row.build(len(images.classes)), net, images.classes, row.image, *as_they_are)
    network.check(images)
    if row.standardise:
        network.mean, network.std = images.mean_std()
    return network


def save(network: Network, out: Path | str, *, inputs: Mapping[str, str] | None = None) -> None:
    """Write the folder `out`, whole or not at all; raises BadInput when it exists and is not empty."""
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.module.state_dict().items()
    }
    document = {
        **stamp.stamp(KIND, inputs),
        **{name: getattr(network, name) for name in FIELDS},
        "layers": describe(network.module),
        "history": network.history,
    }
    with stamp.new_folder(out) as folder:
        save_file(weights, folder / WEIGHTS)
        stamp.write_json(folder / DOCUMENT, document | {"weights": {WEIGHTS: stamp.file_sha256(folder / WEIGHTS)}})


FIELDS = ("net", "classes", "image", "mean", "std")


def load(path: Path | str, *, build: Callable[[int], nn.Module] | None = None) -> Network:
    """Load a folder that `save` wrote, in eval mode.

    `build(classes)` makes the network that is no named one, with so many classes and as it was before anything was cut.
    Raises BadInput when a file is missing, damaged, or belongs to another network.
    """
    path = Path(path)
    document = _document(path)
    try:
        found: dict[str, Any] = {name: document[name] for name in FIELDS}
        layers, history = document["layers"], list(document["history"])
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found.items()
        }
        module = _built(path, found["net"], len(found["classes"]), build)
        rebuild(module, layers)
        if path.joinpath(WEIGHTS).is_file() and stamp.file_sha256(path / WEIGHTS) != document["weights"][WEIGHTS]:
            raise BadInput(
                f"{str(path / WEIGHTS)!r} is damaged or of another network: its SHA-256 is not the one noted"
            )
        module.load_state_dict(load_file(path / WEIGHTS))
        module = module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Network(module, **known, history=history)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{str(path / DOCUMENT)!r} is not as it was written: {error}") from None
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"weights {str(path / WEIGHTS)!r} cannot be loaded: {reason}") from None


def _built(path: Path, net: str, classes: int, build: Callable[[int], nn.Module] | None) -> nn.Module:
    if build is None:
        if net not in nets.NETS:
            raise BadInput(
                f"{str(path)!r} holds {net!r}, which is no network of ours ({', '.join(nets.NETS)}): "
                "only tprune.cnn.network.load(path, build=...) can build it"
            )
        return nets.named(net).build(classes)
    try:
        return build(classes)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"build({classes}), the number of classes, did not make a network: {error}") from error


def _document(path: Path) -> Mapping[str, Any]:
    if not (path / DOCUMENT).is_file():
        raise BadInput(f"{str(path)!r} is no folder of a trained network: it has no {DOCUMENT}")
    try:
        document = json.loads((path / DOCUMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{str(path / DOCUMENT)!r} cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != KIND or document.get("schema") != stamp.SCHEMA:
        raise BadInput(f"{str(path / DOCUMENT)!r} is no network (kind must be {KIND!r}, schema {stamp.SCHEMA})")
    return document
