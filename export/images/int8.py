"""Image networks in 8 bits: `Int8(calibration, held)` for `network_to_onnx` and `network_to_executorch`.

Weights get a scale for every output channel, activations one for every tensor, from the range that they take on real
images (post-training static quantisation). Each engine's own quantiser does it, so that each gets the pattern that its
8-bit kernels know: ONNX Runtime's QDQ nodes, ExecuTorch's for XNNPACK. What goes in and comes out stays float32.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tprune.base.errors import BadInput
from tprune.base.pixels import Pixels
from tprune.export import targets
from tprune.export.images.classifier import Bytes, Floats, inputs
from tprune.export.quiet import quiet

CALIBRATION = 200  # images; of ResNet-18 on CIFAR-10, a hundred gave the same classes


@dataclass(frozen=True)
class Int8:
    """How to quantise, and what it may cost: uint8 images (count, channels, height, width) that the ranges are taken
    from, others that are classified before and after, by how many percentage points accuracy may fall, and for which
    processors an ONNX artefact is (see `tprune.export.targets`)."""

    calibration: Bytes
    held: Pixels
    most: float = 0.5
    target_cpu: str = targets.ALL

    def __post_init__(self) -> None:
        targets.named(self.target_cpu)
        if not len(self.calibration):
            raise BadInput("there is no image to take the ranges of 8-bit activations from")
        if not 0 <= self.most <= 100:
            raise BadInput(f"an accuracy drop of {self.most:g} points must lie in [0, 100]")


def onnx_model(fp32: Path, int8: Path, how: Int8) -> None:
    """Write the ONNX model `fp32`, of input "image", with 8-bit operators to `int8`.

    Unless the target has exact sums, weights take 7 of the 8 bits, so that sums of two products fit in 16.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Return the next calibration input, or None at the end."""

        def __init__(self) -> None:
            self.rows = inputs(how.calibration)

        def get_next(self) -> dict[str, Floats] | None:
            row = next(self.rows, None)
            return None if row is None else {"image": row}

    with quiet(), tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "int8.onnx")
        quantize_static(
            fp32, made, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            reduce_range=not targets.named(how.target_cpu).exact,
        )  # fmt: skip
        int8.write_bytes(made.read_bytes())
