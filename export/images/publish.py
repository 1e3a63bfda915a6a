"""Publish an exported image network: add a manifest, check it against PyTorch, and only then give it its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tprune.base.errors import BadInput, WorkFailed
from tprune.base.pixels import Pixels
from tprune.base.stamp import new_folder
from tprune.cnn import nets
from tprune.cnn.count import count
from tprune.cnn.network import Network
from tprune.cnn.rounding import EightBit
from tprune.export import targets
from tprune.export.graphs import images as cnn_graphs
from tprune.export.images import classifier as image_runtime
from tprune.export.images import parity as image_parity
from tprune.export.images.int8 import Int8
from tprune.export.images.manifest import ImageManifest, ImageParity, NetworkFacts
from tprune.export.manifest import artefact_id, describe_files
from tprune.export.marian.publish import Programs

RANDOM = 32  # images of the parity check where no real ones are given


def publish(
    network: Network,
    out: str | Path,
    write: Callable[[Path], Programs],
    *,
    name: str = "",
    images: Pixels | None = None,
    threads: int = 1,
    int8: Int8 | None = None,
) -> ImageManifest:
    """Let `write` put its program into a folder, add the manifest, and rename the folder to `out`.

    `name` is the network's name in reports (default: its `net`). `images` are for the parity check (default: random
    ones). With `int8`, the accuracy on its images is compared with PyTorch instead. Raises BadInput if `out` is taken,
    images have another size or the network quantises its activations itself (int8), WorkFailed when the artefact
    differs from PyTorch or loses too much accuracy; nothing is left behind then.
    """
    if int8:
        targets.check_gate(int8.target_cpu)
        images = int8.held
        if len(images.classes) > len(network.classes):
            raise BadInput(
                f"{images.name} has {len(images.classes)} classes; {network.net} knows {len(network.classes)}"
            )
        if any(isinstance(layer, EightBit) for layer in network.module.modules()):
            raise BadInput(f"{network.net} rounds its inputs to 8 bits itself; int8 takes what `quantise` took")
    pixels, source = _random(network) if images is None else (images.data, images.name)
    for shape in {pixels.shape[1:], int8.calibration.shape[1:] if int8 else pixels.shape[1:]} - {network.image}:
        here, mine = (" x ".join(map(str, one)) for one in (shape, network.image))
        raise BadInput(f"{source}: images are {here} (channels, height, width); {network.net} takes {mine}")
    try:
        with new_folder(out) as folder:
            wanted = image_parity.answers(network, pixels)
            manifest = _manifest(network, folder, write(folder), name or network.net, int8)
            manifest.write(folder)  # parity opens the folder as a user would
            found = _opened(folder, threads).logits(pixels)
            parity, cost = (
                image_parity.weigh(wanted, found, int8.held, int8.most)
                if int8
                else (image_parity.compare(wanted, found, source, image_parity.tolerance(network)), None)
            )
            manifest = replace(manifest, parity=parity, cost=cost)
            manifest.write(folder)
    except WorkFailed as error:
        raise WorkFailed(f"export of {name or network.net!r} refused: {error}") from error.__cause__
    except OSError as error:
        raise WorkFailed(
            f"{str(out)!r} cannot be written: {error.strerror or error}; make room or name another --out"
        ) from error
    return manifest


def _opened(folder: Path, threads: int) -> image_runtime.Classifier:
    try:
        return image_runtime.open(folder, threads)
    except BadInput as error:  # it reports damage, but the file is new
        raise WorkFailed(f"the runtime cannot run what was written; try the other one, or fp32 ({error})") from None


def _random(network: Network) -> tuple[Any, str]:
    drawn = np.random.default_rng(0).integers(0, 256, (RANDOM, *network.image), dtype=np.uint8)
    return drawn, "random pixels, seed 0"


def _manifest(network: Network, folder: Path, programs: Programs, name: str, int8: Int8 | None) -> ImageManifest:
    """Describe the program in `folder`; the parity result is not filled in yet."""
    files = describe_files(folder, programs.files)
    return ImageManifest(
        id=artefact_id(files),
        runtime=programs.runtime,
        precision="int8" if int8 else "fp32",
        files=files,
        tensors=programs.tensors(),
        classes=network.classes,
        image=network.image,
        model=_facts(network, name),
        parity=ImageParity(0, "", 0, 0.0, 0.0),
        delegation=programs.delegation,
        target_cpu=int8.target_cpu if int8 and programs.runtime == "onnxruntime" else targets.ALL,
    )


def _facts(network: Network, name: str) -> NetworkFacts:
    """Return the methods in a network's history, and its size with factors multiplied out."""
    counted = count(cnn_graphs.plain(network.module), network.image)
    methods = [step["method"] for step in network.history if step.get("method")]
    recipes = [step["recipe"] for step in network.history if step.get("recipe")]
    row = nets.NETS.get(network.net)
    dense = count(row.build(len(network.classes)), network.image).weights if row else None
    return NetworkFacts(
        id=network.id,
        name=name,
        net=network.net,
        criterion=methods[-1] if methods else "dense",
        seed=recipes[0].get("seed") if recipes else None,
        keep=None if dense is None else round(counted.nonzero / dense, 6),
        params=counted.nonzero,
        macs=counted.macs,
    )
