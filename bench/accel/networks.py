"""Named networks with synthetic densities, for simulations without a trained model: `named("resnet18-32")`.

The shapes are those of the published networks. The densities are our choice, one set per network, and every output
based on them is marked SYNTHETIC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tprune.base.errors import BadInput
from tprune.bench.accel.layer import DENSE, Decomposition, Layer, Operand, Shape, Workload

BASES = 6  # M of every decomposed layer larger than 1x1; our choice
SMALLEST_DEPTH = 8  # with fewer channels, M bases save no products (M / C per MAC), so the layer stays dense


@dataclass(frozen=True, slots=True)
class Densities:
    """Shares of non-zeros: pruned weights, pruned 1x1 weights, input activations, ternary coefficients."""

    weights: float
    pointwise: float
    activations: float
    coefficients: float


Rows = Iterator[tuple[str, Shape]]


def conv(name: str, io: tuple[int, int], size: int, kernel: int, stride: int = 1, groups: int = 1) -> tuple[str, Shape]:
    """Return a square convolution padded by half its kernel."""
    return name, Shape(*io, (size, size), (kernel, kernel), stride, kernel // 2, groups)


def linear(name: str, inputs: int, outputs: int) -> tuple[str, Shape]:
    """Return a fully connected layer."""
    return name, Shape(inputs, outputs, (1, 1), (1, 1))


def vgg16(size: int, classifier: tuple[int, ...]) -> Rows:
    """Yield VGG16: five stages of 3x3 convolutions, each followed by 2x2 pooling, then the classifier."""
    channels = 3
    for stage, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for number in range(1, count + 1):
            yield conv(f"conv{stage}_{number}", (channels, width), size, 3)
            channels = width
        size //= 2
    features = channels * size * size
    for number, width in enumerate(classifier, start=1):
        yield linear(f"fc{number}", features, width)
        features = width


def stem(size: int) -> Iterator[tuple[str, Shape, int]]:
    """Yield a ResNet's first layer and its output size: 3x3 for small images, 7x7 and pooling for large ones."""
    yield (*conv("conv1", (3, 64), size, 3), size) if size <= 64 else (*conv("conv1", (3, 64), size, 7, 2), size // 4)


def basic_resnet(size: int, blocks: tuple[int, ...], classes: int) -> Rows:
    """Yield a ResNet with two 3x3 convolutions per block (18, 34)."""
    for name, shape, behind in stem(size):
        size = behind
        yield name, shape
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            name = f"layer{stage + 1}.{block}"
            yield conv(f"{name}.conv1", (channels, width), size, 3, stride)
            yield conv(f"{name}.conv2", (width, width), size // stride, 3)
            if channels != width:
                yield conv(f"{name}.shortcut", (channels, width), size, 1, stride)
            channels, size = width, size // stride
    yield linear("fc", channels, classes)


def bottleneck_resnet(size: int, blocks: tuple[int, ...], classes: int) -> Rows:
    """Yield a ResNet of 1x1, 3x3, 1x1 blocks (50, 101, 152); the 3x3 has the stride."""
    for name, shape, behind in stem(size):
        size = behind
        yield name, shape
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            name = f"layer{stage + 1}.{block}"
            yield conv(f"{name}.conv1", (channels, width), size, 1)
            yield conv(f"{name}.conv2", (width, width), size, 3, stride)
            yield conv(f"{name}.conv3", (width, 4 * width), size // stride, 1)
            if not block:
                yield conv(f"{name}.shortcut", (channels, 4 * width), size, 1, stride)
            channels, size = 4 * width, size // stride
    yield linear("fc", channels, classes)


def mobilenet(size: int, classes: int) -> Rows:
    """Yield MobileNet (v1): alternating depthwise 3x3 and 1x1."""
    yield conv("conv1", (3, 32), size, 3, 2)
    channels, size = 32, size // 2
    widths = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    for number, (width, stride) in enumerate(widths, start=1):
        yield conv(f"depthwise{number}", (channels, channels), size, 3, stride, channels)
        size //= stride
        yield conv(f"pointwise{number}", (channels, width), size, 1)
        channels = width
    yield linear("fc", channels, classes)


def mobilenet_v2(size: int, classes: int) -> Rows:
    """Yield MobileNetV2 for 32x32 images: the first two strides are 1."""
    yield conv("conv1", (3, 32), size, 3)
    channels = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (expansion, width, count, first) in enumerate(stages, start=1):
        for block in range(count):
            stride, hidden, name = (1 if block else first), expansion * channels, f"block{stage}.{block}"
            yield conv(f"{name}.expand", (channels, hidden), size, 1)
            yield conv(f"{name}.depthwise", (hidden, hidden), size, 3, stride, hidden)
            size //= stride
            yield conv(f"{name}.project", (hidden, width), size, 1)
            channels = width
    yield conv("conv2", (channels, 1280), size, 1)
    yield linear("fc", 1280, classes)


def alexnet() -> Rows:
    """Yield AlexNet with its two groups (Krizhevsky 2012), convolutions 666 M MACs."""
    yield "conv1", Shape(3, 96, (224, 224), (11, 11), 4, 2)
    yield conv("conv2", (96, 256), 27, 5, groups=2)
    yield conv("conv3", (256, 384), 13, 3)
    yield conv("conv4", (384, 384), 13, 3, groups=2)
    yield conv("conv5", (384, 256), 13, 3, groups=2)
    yield linear("fc1", 9216, 4096)
    yield linear("fc2", 4096, 4096)
    yield linear("fc3", 4096, 1000)


# vgg16-32 has the 1.66 % of coefficients of PENNI's released VGG16 (its notebook). All other numbers are our choice:
# denser for smaller networks and for 1000 classes.
NETWORKS: Mapping[str, tuple[Callable[[], Rows], Densities]] = {
    "vgg16-32": (lambda: vgg16(32, (512, 512, 10)), Densities(0.06, 0.3, 0.40, 0.0166)),
    "resnet18-32": (lambda: basic_resnet(32, (2, 2, 2, 2), 10), Densities(0.08, 0.3, 0.45, 0.03)),
    "resnet152-32": (lambda: bottleneck_resnet(32, (3, 8, 36, 3), 10), Densities(0.10, 0.15, 0.45, 0.05)),
    "mobilenetv2-32": (lambda: mobilenet_v2(32, 10), Densities(0.5, 0.4, 0.55, 0.2)),
    "alexnet-224": (alexnet, Densities(0.37, 0.1, 0.45, 0.25)),
    "vgg16-224": (lambda: vgg16(224, (4096, 4096, 1000)), Densities(0.33, 0.1, 0.50, 0.25)),
    "resnet18-224": (lambda: basic_resnet(224, (2, 2, 2, 2), 1000), Densities(0.35, 0.45, 0.50, 0.25)),
    "resnet50-224": (lambda: bottleneck_resnet(224, (3, 4, 6, 3), 1000), Densities(0.30, 0.40, 0.50, 0.25)),
    "mobilenet-224": (lambda: mobilenet(224, 1000), Densities(0.6, 0.5, 0.55, 0.4)),
}


def named(name: str) -> Workload:
    """Return the synthetic workload of a named network."""
    if name not in NETWORKS:
        raise BadInput(
            f"network {name!r} is not known; legal are {', '.join(NETWORKS)}, a workload.json or an ONNX file"
        )
    rows, densities = NETWORKS[name]
    layers = tuple(synthetic(*row, densities, first=number == 0) for number, row in enumerate(rows()))
    note = (
        f"SYNTHETIC densities, our choice: weights {densities.weights:g} (1x1 and fully connected "
        f"{densities.pointwise:g}), activations {densities.activations:g}, coefficients {densities.coefficients:g} of "
        f"M = {BASES} bases (1x1: one basis, {min(1, 2 * densities.coefficients):g}); first layer and depthwise layers "
        "not pruned"
    )
    return Workload(name, "synthetic", layers, note=note, id=f"{name} {densities}")


def synthetic(name: str, shape: Shape, densities: Densities, *, first: bool) -> Layer:
    """Return a layer with the densities of its kind; the input of the first, an image, has no zeros."""
    activations = DENSE if first else Operand(densities.activations)
    if first or (shape.depth == 1 and shape.groups > 1):
        return Layer(name, shape, DENSE, activations)
    weights = Operand(densities.weights if shape.area > 1 else densities.pointwise)
    return Layer(name, shape, weights, activations, decomposition(shape, densities.coefficients))


def decomposition(shape: Shape, density: float) -> Decomposition | None:
    """Return ESCALATE's decomposition of a layer of this shape: M bases, one (1x1), or None.

    Fully connected layers (1x1 on 1x1), depthwise layers and those with very few inputs are not decomposed but stored
    with 8 bits (M bases on C inputs take M / C of the dense products).
    """
    if shape.depth < SMALLEST_DEPTH or shape.size == (1, 1):
        return None
    if shape.area == 1:
        return Decomposition(1, Operand(min(1.0, 2 * density)))  # one coefficient per weight
    return Decomposition(min(BASES, shape.area), Operand(density))
