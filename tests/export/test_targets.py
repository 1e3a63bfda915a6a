"""For which processors an int8 artefact is, who may judge it, and the warning where it does not fit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from tests.support.command import tprune, write_data, write_model
from tprune.base import processor
from tprune.base.errors import BadInput, Caution, WorkFailed
from tprune.base.processor import Processor
from tprune.export import targets
from tprune.export.graphs.precision import INT8, Precision
from tprune.export.manifest import Manifest
from tprune.export.marian.gate import Gate, quantize
from tprune.export.ort import saturation
from tprune.export.ort.int8 import RowsProduct
from tprune.export.ort.runtime import open as open_onnx
from tprune.export.ort.saturation import largest_pair
from tprune.export.targets import PAIR
from tprune.marian.corpus import Corpus

AVX2 = Processor("Zen 3", "x86_64", frozenset({"sse4_1", "avx", "avx2"}))
VNNI = Processor("Ice Lake", "x86_64", AVX2.flags | processor.AVX512 | {"avx512_vnni"})
ARM = Processor("Cortex-A76", "aarch64", frozenset({"asimd", "asimddp"}))

matrices = arrays.arrays(np.int8, st.tuples(st.integers(1, 7), st.integers(1, 4)), elements=st.integers(-128, 127))


@given(matrices)
def test_the_largest_pair_is_what_brute_force_finds(weight: np.ndarray) -> None:
    """The sum of two products is largest with both activations at 255, or with one of them at 0."""
    sums = [0]
    for column in weight.astype(int).T:
        for k in range(0, len(column), 2):
            pair = [*column[k : k + 2], 0][:2]
            sums += [abs(a * pair[0] + b * pair[1]) for a in (0, 255) for b in (0, 255)]
    assert largest_pair(weight) * 255 == max(sums)


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-4, 4, width=32)),
    st.booleans(),
)
def test_pairs_of_an_export_for_all_always_fit(weight: np.ndarray, biased: bool) -> None:
    product = RowsProduct(torch.from_numpy(weight), torch.zeros(weight.shape[1]) if biased else None)
    assert largest_pair(product.weight.numpy()) <= PAIR
    assert 255 * PAIR <= 2**15 - 1
    signed = weight if biased else -weight
    near = product.weight.numpy() * product.scale.numpy()
    assert (np.abs(near - signed) <= 0.5001 * product.scale.numpy()).all()


def graph(operator: str, weight: np.ndarray, at: int, *, domain: str = "") -> onnx.ModelProto:
    names = [f"i{k}" for k in range(at)]
    node = helper.make_node(operator, [*names, "w"], ["y"], domain=domain)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*names, "y")]
    return helper.make_model(
        helper.make_graph([node], "g", ports[:-1], ports[-1:], [numpy_helper.from_array(weight, "w")])
    )


@pytest.mark.parametrize(
    ("operator", "at", "shape"),
    [
        ("DynamicQuantizeMatMul", 1, (2, 1)),
        ("MatMulInteger", 1, (2, 1)),
        ("QLinearMatMul", 3, (2, 1)),
        ("QLinearConv", 3, (1, 2, 1, 1)),
        ("DequantizeLinear", 0, (1, 2)),
    ],
)
def test_weights_that_do_not_fit_are_refused(operator: str, at: int, shape: tuple[int, ...]) -> None:
    saturation.check(graph(operator, np.full(shape, 64, np.int8), at))
    with pytest.raises(WorkFailed, match=f"weights 'w' of {operator} add up to 130"):
        saturation.check(graph(operator, np.full(shape, 65, np.int8), at))
    with pytest.raises(WorkFailed, match="8-bit weights w are inputs of operators that this check does not know"):
        saturation.check(graph("Transpose", np.full(shape, 1, np.int8), 0))
    saturation.check(graph("Transpose", np.full(2, 1, np.int8), 0))


@pytest.mark.parametrize(("name", "here", "fits"), [
    ("all", AVX2, True), ("all", VNNI, True), ("vnni", AVX2, False), ("vnni", VNNI, True), ("vnni", ARM, True),
    ("arm", AVX2, False), ("arm", ARM, True),
])  # fmt: skip
def test_who_may_judge_and_who_is_warned(name: str, here: Processor, fits: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        targets.warn("artefact 'x'", name, here)
    assert [one.category for one in caught] == ([] if fits else [Caution])
    if fits:
        targets.check_gate(name, here)
    else:
        assert f"artefact 'x' was exported for {targets.TARGETS[name].label}; this one (avx2, no VNNI)" in str(
            caught[0].message
        )
        with pytest.raises(BadInput, match=r"target CPU '\w+': this processor \(avx2, no VNNI\) does not sum 8-bit"):
            targets.check_gate(name, here)


def test_a_processor_whose_flags_are_not_known_is_not_accused() -> None:
    unknown = Processor("Core i9", "x86_64")
    with pytest.raises(BadInput, match="without VNNI as far as its system lists"):
        targets.check_gate("vnni", unknown)


def test_only_int8_for_onnx_has_targets() -> None:
    targets.check(None, to="executorch", precision="fp32")
    for to, precision in (("onnx", "fp32"), ("executorch", "int8")):
        with pytest.raises(BadInput, match=f"target CPU 'arm': {precision} for {to} is the same for every processor"):
            targets.check("arm", to=to, precision=precision)
    with pytest.raises(BadInput, match="target CPU 'm68k': must be one of all, vnni, arm"):
        targets.check("m68k", to="onnx", precision="int8")
    with pytest.raises(BadInput, match="target CPU 'm68k'"):
        Precision(frozenset({"encoder"}), "m68k")


def test_an_artefact_of_before_counts_as_one_for_vnni() -> None:
    assert targets.of_document({"runtime": "onnxruntime", "precision": "int8"}) == "vnni"
    assert targets.of_document({"runtime": "onnxruntime", "precision": "int8", "int8": ["decoder"]}) == "all"
    assert targets.of_document({"runtime": "onnxruntime", "precision": "int8", "int8": ["encoder"]}) == "vnni"
    assert targets.of_document({"runtime": "onnxruntime", "precision": "fp32"}) == "all"
    assert targets.of_document({"runtime": "executorch", "precision": "int8"}) == "all"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_config, tiny_tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("targets")
    write_data(folder / "data")
    write_model(folder / "dense", tiny_config(encoder_layers=1, decoder_layers=1), tiny_tokenizer_folder)
    called = tprune(
        "export", folder / "dense", "--data", folder / "data", "--out", folder / "int8", "--precision", "int8",
        "--max-bleu-drop", 100, "--limit", 2, "--json",
    )  # fmt: skip
    assert called.json["target_cpu"] == "all"
    return folder


def test_the_command_line_warns_in_one_line(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.read(work / "int8")
    assert manifest.target_cpu == "all"
    old = tmp_path / "old"
    old.mkdir()
    for file in (work / "int8").iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    document = json.loads((old / "manifest.json").read_text())
    del document["target_cpu"]
    (old / "manifest.json").write_text(json.dumps(document))
    monkeypatch.setattr(processor, "here", lambda: AVX2)
    for folder, said in ((work / "int8", ""), (old, "was exported for x86 processors with VNNI; this one (avx2")):
        called = tprune("evaluate", folder, "--data", work / "data", "--json")
        assert called.json["bleu"] >= 0.0
        assert said in called.err and called.err.count("\n") == bool(said)
    with pytest.warns(Caution, match="export it again for all processors"):
        open_onnx(old)


def test_the_gate_of_a_target_needs_its_arithmetic(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "here", lambda: AVX2)
    rest = ("--data", work / "data", "--out", work / "other", "--precision", "int8", "--target-cpu", "vnni")
    tprune("export", work / "dense", *rest).check_failed(
        2, "this processor (avx2, no VNNI) does not sum 8-bit products as"
    )
    corpus = Corpus(("a",), ("b",), name="x", split="val", language="de")
    gate = Gate(corpus, wanted=Precision(INT8.int8, "vnni"))
    with pytest.raises(BadInput, match="target CPU 'vnni': this processor"):
        quantize(None, work / "other", None, gate)
    assert not (work / "other").exists()


def test_the_exact_target_keeps_all_8_bits(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "here", lambda: VNNI)
    called = tprune(
        "export", work / "dense", "--data", work / "data", "--out", work / "vnni", "--precision", "int8",
        "--max-bleu-drop", 100, "--limit", 2, "--target-cpu", "vnni",
    )  # fmt: skip
    assert called.code == 0, called.err
    held = onnx.load(work / "vnni" / "encoder.onnx").graph
    weights = [numpy_helper.to_array(one) for one in held.initializer if one.data_type == TensorProto.INT8]
    assert max(largest_pair(one) for one in weights if one.ndim == 2) > PAIR
    assert Manifest.read(work / "vnni").target_cpu == "vnni"
