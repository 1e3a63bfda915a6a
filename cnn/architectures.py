"""The architectures behind the named networks: LeNet, ResNet, VGG and MobileNetV2 in their MNIST and CIFAR forms.

They use `Conv2d`, `BatchNorm2d`, `Linear` and layers without weights only, and every shortcut that changes the shape is
a 1 x 1 convolution, so that every channel of every layer can be cut.
"""

from __future__ import annotations

from torch import Tensor, nn

from tprune.cnn import strided  # noqa: F401 - replaces a broken operator of torch


class Block(nn.Module):
    """ResNet's basic block: two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A ResNet for small images: a 3 x 3 stem, one stage a width, the first of each later stage at stride 2."""

    def __init__(self, widths: tuple[int, ...], blocks: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        before = widths[0]
        stages = []
        for number, width in enumerate(widths):
            strides = [1 if number == 0 else 2] + [1] * (blocks - 1)
            inputs = [before] + [width] * (blocks - 1)
            stages.append(nn.Sequential(*(Block(i, width, s) for i, s in zip(inputs, strides, strict=True))))
            before = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, height, width) to logits (batch, classes)."""
        x = self.stages(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.flatten(self.pool(x)))


class Inverted(nn.Module):
    """MobileNetV2's inverted residual: 1 x 1 expansion, 3 x 3 depthwise, 1 x 1 projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
        ]
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        return x + self.layers(x) if self.residual else self.layers(x)


def lenet_300_100(classes: int) -> nn.Module:
    """LeNet-300-100: 784-300-100-classes, 266,200 weights at ten classes."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, classes)
    )


def lenet_5(classes: int) -> nn.Module:
    """LeNet-5 as Caffe has it: 20 and 50 filters of 5 x 5, 800-500-classes, 430,500 weights at ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, classes),
    )  # fmt: skip


def resnet(widths: tuple[int, ...], blocks: int, classes: int) -> nn.Module:
    """ResNet of basic blocks: `blocks` a stage, one stage a width."""
    return ResNet(widths, blocks, classes)


def vgg_16(classes: int) -> nn.Module:
    """VGG-16 for 32 x 32 images: 13 convolutions with batch norm and one linear layer."""
    layers: list[nn.Module] = []
    before = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):  # 0: halve the image
        if width:
            layers += [nn.Conv2d(before, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before, classes))


def mobilenet_v2(classes: int) -> nn.Module:
    """MobileNetV2 for 32 x 32 images: the stem and the second group at stride 1 instead of 2."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    before = 32
    groups = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, width, count, stride in groups:
        for number in range(count):
            layers.append(Inverted(before, width, stride if number == 0 else 1, expansion))
            before = width
    layers += [nn.Conv2d(before, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))
