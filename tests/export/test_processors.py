"""int8 means the same on every processor: sums against exact integers, tokens against this machine's, in emulators."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.support.exports import export
from tests.support.native import Runner, build, sentences
from tprune.base import processor
from tprune.base.errors import WorkFailed
from tprune.base.pixels import Pixels
from tprune.bench.runner.contract import PROGRAMS, host_environment
from tprune.cnn.network import Network
from tprune.export.graphs import images as cnn_graphs
from tprune.export.images import int8 as image_int8
from tprune.export.images.int8 import Int8
from tprune.export.marian.open import open_translator
from tprune.export.ort import saturation
from tprune.export.ort.export import trace
from tprune.export.ort.int8 import ZERO, BlockTable, RowsProduct

# Of x86: SSE4.1 and AVX2, both without VNNI. What the emulator lacks of a model it would complain of.
MODELS = {"Nehalem": "Nehalem", "Haswell": "Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm"}
WIDTH, COLUMNS = 70, 24  # no multiple of 4, 8 or 16


def emulator(model: str) -> tuple[str, ...]:
    program = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if program is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64-static (Debian: qemu-user-static) on x86-64")
    return (program, "-cpu", MODELS[model])


def rows_product(folder: Path, name: str, product: RowsProduct, x: np.ndarray) -> np.ndarray:
    """Write a graph with the product and its input; return what exact integer arithmetic gives."""
    given = {"w": product.weight.numpy(), "s": product.scale.numpy(), "z": product.zero.numpy()}
    node = helper.make_node("DynamicQuantizeMatMul", ["x", *given], ["y"], domain="com.microsoft")
    write(folder, name, node, given, x)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = np.float32((high - low) / 255)
    zero = np.round(np.float32(-low) / step)
    whole = np.clip(np.round(x / step) + zero, 0, 255).astype(np.int64)
    return ((whole - int(zero)) @ given["w"].astype(np.int64)) * step * given["s"]


def block_table(folder: Path, name: str, table: BlockTable, x: np.ndarray) -> np.ndarray:
    """Write a graph that projects on the table; return what exact integer arithmetic gives."""
    given = {"w": table.weight.numpy(), "s": table.scales.numpy()}
    settings = {"K": table.width, "N": len(table.weight), "bits": 8, "block_size": table.block, "accuracy_level": 4}
    write(
        folder,
        name,
        helper.make_node("MatMulNBits", ["x", *given], ["y"], domain="com.microsoft", **settings),
        given,
        x,
    )
    blocks = given["w"].shape[1]
    padded = np.pad(x, ((0, 0), (0, blocks * table.block - table.width))).reshape(len(x), blocks, table.block)
    steps = np.abs(padded).max(2, keepdims=True) / 127
    whole = np.round(np.divide(padded, steps, out=np.zeros_like(padded), where=steps > 0))
    return np.einsum("tbk,nbk,tb,nb->tn", whole, given["w"] - float(ZERO), steps[..., 0], given["s"])


def write(folder: Path, name: str, node: onnx.NodeProto, given: dict[str, np.ndarray], x: np.ndarray) -> None:
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    held = [numpy_helper.from_array(array, key) for key, array in given.items()]
    graph = helper.make_graph([node], name, ports, outputs, held)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=10), folder / f"{name}.onnx")
    np.save(folder / f"{name}.npy", x)


def extremes(seed: int, tokens: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return weights (in, out) and inputs (tokens, in) whose pairs of products are as large as they get."""
    drawn = torch.Generator().manual_seed(seed)
    weight = torch.randn(WIDTH, COLUMNS, generator=drawn)
    weight[:, 0], weight[:, 1], weight[:, 2] = 1.0, -1.0, torch.tensor([1.0, -1.0]).repeat(WIDTH // 2)
    x = torch.randn(tokens, WIDTH, generator=drawn)
    x[:, : WIDTH // 2] = 3.0
    return weight, x.numpy()


def off(folder: Path, expected: dict[str, np.ndarray], before: tuple[str, ...] = ()) -> dict[str, float]:
    """Run all graphs of a folder; return by how much each result is off, as a share of its largest number."""
    command = [*before, sys.executable, str(Path(__file__).resolve().parents[1] / "support" / "sums.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {name: np.load(folder / f"{name}.out.npy") for name in expected}
    return {name: float(np.abs(found[name] - y).max() / np.abs(y).max()) for name, y in expected.items()}


def graphs(folder: Path, *, exact: bool) -> dict[str, np.ndarray]:
    expected = {}
    for tokens in (1, 2, 14):
        weight, x = extremes(tokens, tokens)
        for name, bias in (("biased", torch.zeros(COLUMNS)), ("added", None)):
            name = f"{name}-{tokens}"
            expected[name] = rows_product(folder, name, RowsProduct(weight, bias, exact=exact), x)
    return expected


@pytest.mark.parametrize("model", [None, *MODELS])
def test_products_of_an_export_for_all_processors_are_exact(tmp_path: Path, model: str | None) -> None:
    before = emulator(model) if model else ()
    assert max(off(tmp_path, graphs(tmp_path, exact=False), before).values()) < 1e-6


def test_products_of_an_export_for_vnni_are_cut_off_without_it(tmp_path: Path) -> None:
    expected = graphs(tmp_path, exact=True)
    assert min(off(tmp_path, expected, emulator("Haswell")).values()) > 0.01
    assert max(off(tmp_path, expected, emulator("Nehalem")).values()) < 1e-6
    if processor.has_exact_u8s8(processor.here()):
        assert max(off(tmp_path, expected).values()) < 1e-6


@pytest.mark.parametrize("model", [None, "Haswell"])
def test_block_products_are_exact(tmp_path: Path, model: str | None) -> None:
    expected = {}
    for tokens in (1, 2, 14):
        weight, x = extremes(tokens, tokens)
        expected[f"table-{tokens}"] = block_table(tmp_path, f"table-{tokens}", BlockTable(weight.T), x)
    if model is None and "avx2" not in processor.here().flags:
        pytest.skip("this processor does not quantise the activations of MatMulNBits")
    assert max(off(tmp_path, expected, emulator(model) if model else ()).values()) < 1e-5


def bright(folder: Path, target_cpu: str) -> dict[str, np.ndarray]:
    """Quantise a convolution whose weights are all alike, for images that are nearly white; return its fp32 result."""
    layer = torch.nn.Conv2d(3, 4, 3, bias=False)
    torch.nn.init.ones_(layer.weight)
    layer.weight.data[1].neg_()
    pixels = np.random.default_rng(0).integers(200, 256, (20, 3, 12, 12), dtype=np.uint8)
    one = Network(torch.nn.Sequential(layer, torch.nn.Flatten()), "bright", ("a",), (3, 12, 12), (0.0,) * 3, (1.0,) * 3)
    borders = cnn_graphs.ports(one)
    onnx.save(trace(cnn_graphs.ClassifierGraph(one), borders), folder / "fp32.onnx")
    held = Pixels(pixels, np.zeros(20, np.int64), ("a",), "white")
    image_int8.onnx_model(folder / "fp32.onnx", folder / "int8.onnx", Int8(pixels, held, target_cpu=target_cpu))
    x = (pixels[:1] / 255).astype(np.float32)
    np.save(folder / "fp32.npy", x)
    np.save(folder / "int8.npy", x)
    with torch.no_grad():
        return {"int8": one.module(torch.from_numpy(x)).numpy()}


def test_convolutions_of_an_export_for_all_processors_are_not_cut_off(tmp_path: Path) -> None:
    for target, cut_off in (("all", False), ("vnni", True)):
        folder = tmp_path / target
        folder.mkdir()
        expected = bright(folder, target)
        assert (off(folder, expected, emulator("Haswell"))["int8"] > 0.1) == cut_off
        assert off(folder, expected, emulator("Nehalem"))["int8"] < 0.02
        model = onnx.load(folder / "int8.onnx")
        if cut_off:
            with pytest.raises(WorkFailed, match="add up to 254 in two neighbours"):
                saturation.check(model)
        else:
            saturation.check(model)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", PROGRAMS)
def test_an_int8_artefact_gives_the_same_tokens(
    runtime: str, tiny_config, tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    """The runner in the emulator, Python here; SSE4.1 multiplies tables in single precision, so it gets none."""
    program = build("host", PROGRAMS[runtime])
    for model, components in (("Haswell", "encoder decoder output embedding"), ("Nehalem", "encoder")):
        config = tiny_config(encoder_layers=1, decoder_layers=1)
        artefact = export(runtime, config, tiny_tokenizer_folder, tmp_path / model, int8=components.split())
        given = sentences(112, 6, longest=8)
        called = Runner(program, tmp_path, emulator(model), host_environment(runtime)).translate(artefact, given)
        opened = open_translator(artefact)
        assert called.ids == [opened.greedy(ids).ids for ids in given], model
