"""A trained image network in memory and on disk: its layers, the scaling of its images, and its history.

A folder holds `network.json` (structure and history) and `model.safetensors` (weights), without pickle. It loads
without the command that trained it.
"""

from __future__ import annotations

import hashlib
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
from tprune.cnn import folder as folders
from tprune.cnn import nets
from tprune.cnn.folder import DOCUMENT, FIELDS, KIND, WEIGHTS
from tprune.cnn.images import Images
from tprune.cnn.structure import describe, rebuild


class Entry(dict[str, Any]):
    """One step of a network's history, as it is written to `network.json`, with a short repr."""

    def __repr__(self) -> str:
        epochs, right = self.get("epochs", 0), 100 * self.get("accuracy_held_out", 0.0)
        return f"<{self.get('verb')}: {epochs} epochs, {right:.2f} % of the held-out images right>"


@dataclass
class Network:
    """An image classifier: `module` maps normalised images (batch, channels, height, width) to logits."""

    module: nn.Module
    net: str  # its name in `nets.NETS`, or the caller's own
    classes: tuple[str, ...]
    image: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # per channel, on the scale 0 to 1
    std: tuple[float, ...]
    history: list[dict[str, Any]] = field(default_factory=list)  # the steps that made it, oldest first

    def __post_init__(self) -> None:
        if len(self.image) != 3 or not len(self.mean) == len(self.std) == self.image[0]:
            means = f"{len(self.mean)} means and {len(self.std)} deviations"
            raise BadInput(f"{self.net}: an image of {self.image} (channels, height, width) and {means} do not fit")

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.image))
        return f"Network({self.net}, images {size}, {len(self.classes)} classes, {len(self.history)} steps)"

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels (batch, channels, height, width) as the module's input, channels last."""
        mean, std = (torch.tensor(one, device=pixels.device)[:, None, None] for one in (self.mean, self.std))
        return ((pixels / 255.0 - mean) / std).contiguous(memory_format=torch.channels_last)

    def check(self, images: Images) -> None:
        """Raise BadInput unless the images have the size and the classes of the network."""
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
    """Return a named network with random weights; the scaling of `images` follows the table of networks."""
    row = nets.named(net)
    torch.manual_seed(seed)
    as_they_are = (0.0,) * row.image[0], (1.0,) * row.image[0]
    network = Network(row.build(len(images.classes)), net, images.classes, row.image, *as_they_are)
    network.check(images)
    if row.standardise:
        network.mean, network.std = images.mean_std()
    return network


def save(network: Network, out: Path | str, *, inputs: Mapping[str, str] | None = None) -> None:
    """Write the folder `out` atomically; raise BadInput when it exists and is not empty."""
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


def load(path: Path | str, *, build: Callable[[int], nn.Module] | None = None) -> Network:
    """Load a folder written by `save`, in eval mode.

    `build(classes)` constructs a network that is not in the table, before any cut. Raises BadInput when a file is
    missing or damaged, or belongs to another network.
    """
    path = Path(path)
    saved = folders.read(path)
    try:
        module = _built(path, saved.net, len(saved.classes), build)
        rebuild(module, saved.layers)
        module.load_state_dict(load_file(path / WEIGHTS))
        module = module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Network(module, **{name: getattr(saved, name) for name in (*FIELDS, "history")})
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{str(path / DOCUMENT)!r} is malformed: {error}") from None
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"weights {str(path / WEIGHTS)!r} cannot be loaded: {reason}") from None


def _built(path: Path, net: str, classes: int, build: Callable[[int], nn.Module] | None) -> nn.Module:
    if build is None:
        if net not in nets.NETS:
            raise BadInput(
                f"{str(path)!r} holds {net!r}, which is not a named network ({', '.join(nets.NETS)}): "
                "load it in Python with tprune.cnn.load(path, build=...)"
            )
        return nets.named(net).build(classes)
    try:
        return build(classes)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"build({classes}) failed to return a network of {classes} classes: {error}") from error
