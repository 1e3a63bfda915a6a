"""`tprune cnn`: from training to a shrunk network, and what a wrong call is answered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.support import pictures
from tests.support.command import tprune
from tprune.base.errors import BadInput
from tprune.cnn import methods, network, steps
from tprune.cnn.images import load
from tprune.cnn.rows import shares
from tprune.cnn.settings import Recipe

RUN = ("--held-out", 40, "--batch", 20, "--threads", 1)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> Path:
    return pictures.write(tmp_path_factory.mktemp("data") / "bars")


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    return pictures.write(tmp_path_factory.mktemp("data") / "colours", (3, 32, 32), train=80, test=20)


@pytest.fixture(scope="module")
def lenet(mnist: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("nets") / "dense"
    assert (
        tprune("cnn", "train", "--net", "lenet-300-100", "--data", mnist, *RUN, "--epochs", 3, "--out", out).code == 0
    )
    return out


@pytest.fixture(scope="module")
def resnet(cifar: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("nets") / "dense"
    assert tprune("cnn", "train", "--net", "resnet20", "--data", cifar, *RUN, "--epochs", 1, "--out", out).code == 0
    return out


def is_3x3(layer: torch.nn.Module) -> bool:
    return isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3)


def document(folder: Path) -> dict:
    return json.loads((folder / "network.json").read_text(encoding="utf-8"))


def test_deephoyer_from_dense_to_two_small_networks(lenet: Path, mnist: Path, tmp_path: Path):
    trained, small = tmp_path / "trained", tmp_path / "small"
    call = ("--method", "deephoyer", "--strength", 1e-4, "--data", mnist, *RUN, "--epochs", 2)
    assert tprune("cnn", "train", "--from", lenet, *call, "--out", trained).code == 0
    found = tprune(
        "cnn", "compress", trained, "--data", mnist, *RUN, "--cut", "0.3,1", "--epochs", 1, "--out", small, "--json"
    )
    less, more = (one["counts"]["nonzero"] for one in found.json["networks"])
    assert sorted(p.name for p in small.iterdir()) == ["cut-0.3", "cut-1"]
    assert 266_200 > less > more > 0
    rows = tprune(
        "cnn", "evaluate", lenet, small / "cut-0.3", small / "cut-1", "--data", mnist, "--threads", 1, "--json"
    ).json["rows"]
    assert [row["nonzero"] for row in rows] == [266_200, less, more]
    assert [row["dense_weights"] for row in rows] == [266_200] * 3
    assert rows[0]["accuracy"] > 0.9 and rows[1]["accuracy"] > 0.9
    assert [row["epochs"] for row in rows] == [3, 6, 6]
    assert rows[2]["command"].count(" && ") == 2 and "--cut 0.3,1" in rows[2]["command"]
    assert rows[2]["settings"]["penalised"] == "hoyer-square"


def test_levels_that_are_done_are_left_by_the_same_call_and_refused_by_another(
    lenet: Path, mnist: Path, tmp_path: Path
):
    small, run = tmp_path / "small", ("--data", mnist, *RUN, "--method", "deephoyer", "--epochs", 1)
    call = ("cnn", "compress", lenet, *run, "--cut", "0.3,1", "--out", small)
    first = tprune(*call)
    ids = {path.name: document(path)["created"] for path in small.iterdir()}
    shutil.rmtree(small / "cut-1")  # as if it had been killed before
    again = tprune(*call)
    assert (again.code, again.out) == (0, first.out)
    assert document(small / "cut-0.3")["created"] == ids["cut-0.3"] and (small / "cut-1").is_dir()
    tprune(*call, "--lr", 0.002).check_failed(2, "cut-0.3")


def test_a_level_that_is_done_was_made_of_the_same_images(lenet: Path, tmp_path: Path):
    data, small = pictures.write(tmp_path / "data"), tmp_path / "small"
    call = ("cnn", "compress", lenet, "--data", data, *RUN, "--method", "deephoyer", "--epochs", 0, "--cut", "0.3,1")
    assert tprune(*call, "--out", small).code == 0
    shutil.rmtree(small / "cut-1")
    shutil.rmtree(data)
    pictures.write(data, train=90)
    tprune(*call, "--out", small).check_failed(2, "cut-0.3' was made of other images than ")
    assert [path.name for path in small.iterdir()] == ["cut-0.3"]


def test_a_dry_run_knows_what_is_done(lenet: Path, mnist: Path, tmp_path: Path):
    call = ("cnn", "compress", lenet, "--data", mnist, *RUN, "--method", "deephoyer", "--epochs", 0, "--cut", "0.3,1")
    assert tprune(*call, "--out", tmp_path / "small").code == 0
    shutil.rmtree(tmp_path / "small" / "cut-1")
    assert tprune(*call, "--out", tmp_path / "small", "--dry-run").code == 0


def test_accuracy_on_images_that_were_trained_on_is_warned_of(lenet: Path, mnist: Path, tmp_path: Path):
    cut = ("--method", "deephoyer", "--cut", 0.3, "--epochs", 0, "--threads", 1)
    call = ("cnn", "compress", lenet, "--data", mnist, *cut)
    told = tprune(*call, "--held-out", 60, "--out", tmp_path / "sixty").err
    assert "other images than bars/train less 60 held out: its accuracy" in told
    assert tprune(*call, "--held-out", 40, "--out", tmp_path / "forty").err == ""


def test_a_cut_for_which_nothing_was_trained_names_no_penalty(lenet: Path, mnist: Path, tmp_path: Path):
    run = ("--data", mnist, *RUN, "--method", "deephoyer")
    penalised = ("--penalty", "l1", "--strength", 1e-3, "--epochs", 1)
    assert tprune("cnn", "train", "--from", lenet, *run, *penalised, "--out", tmp_path / "l1").code == 0
    cut = (*run, "--cut", 0.3, "--epochs", 0)
    for name, start, more in (("of-l1", tmp_path / "l1", ("--structural",)), ("of-dense", lenet, ())):
        assert tprune("cnn", "compress", start, *cut, *more, "--out", tmp_path / name).code == 0
    folders = (lenet, tmp_path / "of-l1", tmp_path / "of-dense")
    rows = tprune("cnn", "evaluate", *folders, "--data", mnist, "--threads", 1, "--json").json["rows"]
    assert rows[1]["settings"] == {"penalised": "l1", "strength": 1e-3, "structural": True}
    assert rows[2]["settings"] == {"penalised": "none", "strength": 0.0, "structural": False}


def test_rows_of_networks_that_no_training_made(mnist: Path, tmp_path: Path):
    network.save(network.fresh("lenet-300-100", load(str(mnist), split="train")), tmp_path / "fresh")
    cut = ("--method", "deephoyer", "--cut", 0.3, "--epochs", 0, "--data", mnist, *RUN)
    assert tprune("cnn", "compress", tmp_path / "fresh", *cut, "--out", tmp_path / "cut").code == 0
    told = tprune("cnn", "evaluate", tmp_path / "cut", "--data", mnist, "--threads", 1, "--json")
    assert told.json["rows"][0]["seed"] is None


def test_shares_are_told_beside_a_network_that_penni_can_start_from_only(resnet: Path, lenet: Path):
    penni = network.load(resnet)
    method = methods.Penni(bases=2)
    method.convert(penni.module)
    penni.history.append(
        {"method": "penni", "settings": {"strength": 0.0, "bases": 2, "interval": 1, "centred": False}}
    )
    assert shares(penni, network.load(resnet)) is not None
    assert shares(penni, network.load(lenet)) is None
    finished = network.load(resnet)
    finished.module = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, groups=3))
    assert shares(penni, finished) is None


def test_a_view_that_takes_no_channels_last_map_is_refused_at_once(cifar: Path):
    class Viewed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.fc = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Linear(4096, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.a(x).view(x.size(0), -1))

    rest, held = load(str(cifar), split="train").hold_out(40)
    mine = network.Network(Viewed(), "viewed", rest.classes, (3, 32, 32), *rest.mean_std())
    with pytest.raises(BadInput, match=r"viewed does not accept .*: it calls x.view on a map.* use x.flatten\(1\)"):
        steps.train(mine, rest, Recipe(epochs=1), held=held)


def test_the_history_says_who_taught(lenet: Path, mnist: Path, tmp_path: Path):
    call = (lenet, "--method", "deephoyer", "--cut", 0.5, "--data", mnist, *RUN, "--epochs", 1, "--out")
    taught = ("--teacher", lenet, "--teacher-weight", 0.5)
    assert "taught by" in tprune("cnn", "compress", *call, tmp_path / "dry", *taught, "--dry-run").out
    assert tprune("cnn", "compress", *call, tmp_path / "taught", *taught).code == 0
    assert tprune("cnn", "compress", *call, tmp_path / "plain").code == 0
    one, other = (document(tmp_path / name)["history"][-1] for name in ("taught", "plain"))
    told = {"id": network.load(lenet).id, "net": "lenet-300-100", "weight": 0.5, "temperature": 4.0}
    assert (one["teacher"], other["teacher"]) == (told, None)
    assert network.load(tmp_path / "taught").id != network.load(tmp_path / "plain").id
    folders = (lenet, tmp_path / "taught", tmp_path / "plain")
    rows = tprune("cnn", "evaluate", *folders, "--data", mnist, "--threads", 1, "--json").json["rows"]
    assert [row["teacher"] for row in rows] == [None, told, None]


def test_the_table_for_a_person_names_every_network(lenet: Path, mnist: Path):
    told = tprune("cnn", "evaluate", lenet, "--data", mnist, "--threads", 1)
    assert told.code == 0 and "dense" in told.out


@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_svd_training_leaves_plain_thin_convolutions(resnet: Path, cifar: Path, tmp_path: Path, scheme: str):
    trained, small = tmp_path / "trained", tmp_path / "small"
    call = ("--method", "svd", "--scheme", scheme, "--data", cifar, *RUN, "--epochs", 1, "--lr", 0.01)
    assert tprune("cnn", "train", "--from", resnet, *call, "--out", trained).code == 0
    assert {layer["kind"] for layer in document(trained)["layers"].values()} == {"svd-conv", "batch-norm", "linear"}
    assert (
        tprune("cnn", "compress", trained, "--data", cifar, *RUN, "--cut", 0.5, "--epochs", 1, "--out", small).code == 0
    )
    layers = document(small)["layers"]
    assert {layer["kind"] for layer in layers.values()} == {"conv", "batch-norm", "linear"}
    assert "stages.0.0.conv1.1" in layers
    assert document(small)["history"][-1]["counts"]["macs"] < 40_813_184


def test_penni_in_rounds_with_its_bases_kept_and_then_finished(resnet: Path, cifar: Path, tmp_path: Path):
    trained, based, plain = (tmp_path / name for name in ("trained", "based", "plain"))
    call = ("--method", "penni", "--bases", 4, "--data", cifar, *RUN, "--epochs", 2, "--lr", 0.01)
    told = tprune("cnn", "train", "--from", resnet, *call, "--out", trained)
    assert "layer stages.1.0.shortcut.0 is 1 x 1" in told.out
    cut = ("--cut", 0.8, "--rounds", 2, "--epochs", 2, "--keep-bases")
    assert tprune("cnn", "compress", trained, "--data", cifar, *RUN, *cut, "--out", based).code == 0
    assert document(based)["layers"]["conv1"]["kind"] == "basis-conv"
    assert [round(step["difference"], 6) for step in document(based)["history"][-1]["rounds"]] == [0, 0]
    call = ("--data", cifar, *RUN, "--cut", 0, "--epochs", 0)
    assert tprune("cnn", "compress", based, *call, "--out", plain).code == 0
    assert {layer["kind"] for layer in document(plain)["layers"].values()} == {"conv", "batch-norm", "linear"}
    pixels = load(str(cifar), split="test").pixels
    one, other = network.load(based), network.load(plain)
    torch.testing.assert_close(
        one.module(one.normalise(pixels)), other.module(other.normalise(pixels)), atol=1e-4, rtol=1e-4
    )
    rows = tprune("cnn", "evaluate", resnet, trained, based, plain, "--data", cifar, "--threads", 1, "--json").json[
        "rows"
    ]
    left = sum(
        int(layer.coefficients.count_nonzero()) for layer in one.module.modules() if hasattr(layer, "coefficients")
    )
    kernels = sum(layer.weight[..., 0, 0].numel() for layer in network.load(resnet).module.modules() if is_3x3(layer))
    assert rows[0]["kept"] is None and rows[2]["kept"] == rows[3]["kept"]
    for old in (one, other):  # histories of before these were counted
        for name in ("convolutions", "coefficients", "parameters"):
            del old.history[-1]["counts"][name]
    dense = network.load(resnet)
    assert (shares(one, dense), shares(other, dense)) == (rows[2]["kept"], None)
    assert [rows[at]["kept"]["of_coefficients"] for at in (1, 2)] == [1, left / (4 * kernels)]


def test_a_network_remembers_its_method(resnet: Path):
    assert methods.of(network.load(resnet)) is None
    held = network.load(resnet)
    held.history.append({"method": "svd", "settings": {"scheme": "spatial", "strength": 0.5}})
    assert methods.of(held) == methods.Svd(scheme="spatial", strength=0.5)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("train", "--net", "resnet21"), "there is no network 'resnet21'; legal are lenet-300-100"),
        (("train",), "give either --net"),
        (("train", "--net", "lenet-5", "--from", "LENET"), "give either --net"),
        (("train", "--net", "lenet-5", "--epochs", 0), "epochs 0 must be at least 1"),
        (("train", "--net", "lenet-5", "--lr", 0), "lr 0"),
        (("train", "--net", "lenet-5", "--strength", 1), "--strength: only for training with --method"),
        (
            ("train", "--net", "lenet-5", "--method", "magic"),
            "there is no method 'magic'; legal are deephoyer, svd, penni",
        ),
        (("train", "--net", "lenet-5", "--method", "svd", "--bases", 3), "svd has no setting 'bases'"),
        (("train", "--net", "lenet-5", "--method", "penni", "--bases", 26), "bases 26 must be 1 to 25"),
        (
            ("train", "--net", "lenet-5", "--method", "svd", "--scheme", "diagonal"),
            "scheme 'diagonal' must be channel or spatial",
        ),
        (("train", "--net", "lenet-5", "--method", "deephoyer", "--penalty", "l7"), "penalty 'l7'"),
        (("train", "--net", "resnet20"), "1 x 28 x 28 (channels, height, width); resnet20 takes 3 x 32 x 32"),
        (("train", "--net", "lenet-5", "--held-out", 9999), "cannot hold out 9999 of 320 images"),
        (("compress", "LENET", "--cut", "much"), "--cut 'much' must be a number"),
        (("compress", "LENET", "--cut", "1"), "was trained for no method; say which with --method"),
        (("compress", "LENET", "--cut", "-1", "--method", "deephoyer"), "cut -1 must be in [0, 100) for deephoyer"),
        (("compress", "LENET", "--cut", "1.5", "--method", "svd", "--dry-run"), "cut 1.5 must be in [0, 1) for svd"),
        (("compress", "LENET", "--cut", "nan", "--method", "penni"), "cut nan must be in [0, 100) for penni"),
        (("compress", "LENET", "--cut", "0.1,0.10", "--method", "penni"), "--cut '0.1,0.10' names 0.1 twice"),
        (("compress", "LENET", "--cut", "1", "--method", "svd", "--structural"), "svd has no setting 'structural'"),
        (("compress", "LENET", "--cut", "0.1", "--method", "svd", "--keep-bases"), "only penni has bases to keep"),
        (("compress", "LENET", "--cut", "0.1", "--method", "svd"), "no convolution that SVD training supports"),
        (
            ("compress", "LENET", "--cut", "1", "--method", "deephoyer", "--rounds", 9, "--epochs", 2),
            "too few for 9 rounds",
        ),
        (("compress", "NOWHERE", "--cut", "1"), "is not the folder of a trained network"),
        (
            ("train", "--net", "lenet-5", "--teacher-weight", 0.5, "--temperature", 2),
            "--teacher-weight and --temperature: only for",
        ),
        (
            ("train", "--net", "lenet-5", "--teacher", "LENET", "--teacher-weight", 2),
            "weight 2.0 of the teacher must",
        ),
        (("train", "--net", "lenet-5", "--teacher", "NOWHERE"), "is not the folder of a trained network"),
        (
            ("compress", "LENET", "--cut", "1", "--method", "deephoyer", "--epochs", 0, "--teacher", "LENET"),
            "--teacher: nothing is taught in 0 epochs",
        ),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(lenet: Path, mnist: Path, tmp_path: Path, words: tuple, part: str):
    words = tuple(str(lenet) if word == "LENET" else word for word in words)
    known = dict(zip(RUN[::2], RUN[1::2], strict=True)) | {"--epochs": 1}
    rest = [word for flag, value in known.items() if flag not in words for word in (flag, value)]
    told = tprune("cnn", *words, "--data", mnist, *rest, "--out", tmp_path / "out")
    told.check_failed(2, part)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_reads_no_images_and_writes_nothing(tmp_path: Path):
    told = tprune(
        "cnn", "train", "--net", "resnet20", "--data", "nowhere", "--out", tmp_path / "out", "--dry-run", "--json"
    )
    assert told.json["recipe"]["lr"] == 0.1 and list(tmp_path.iterdir()) == []
    assert told.json["recipe"]["shift"] == 4


def test_a_dry_run_says_what_would_be_done(lenet: Path, tmp_path: Path):
    call = (
        "cnn",
        "compress",
        lenet,
        "--data",
        "nowhere",
        "--method",
        "deephoyer",
        "--out",
        tmp_path / "out",
        "--dry-run",
    )
    told = tprune(*call, "--cut", "0.1,1", "--epochs", 2)
    one, other = told.out.strip().splitlines()
    assert one.startswith(f"would cut {lenet} at 0.1 (deephoyer: penalised none, strength 0.0, structural False")
    assert other.endswith(f"2 epochs with adam at 0.001, 128 images a step, and write {tmp_path / 'out' / 'cut-1'}")
    assert "without fine-tuning" in tprune(*call, "--cut", 1, "--epochs", 0).out
    assert "128 images a step, shifted by up to 2 pixels, and" in tprune(*call, "--cut", 1, "--shift", 2).out
    fresh = ("cnn", "train", "--net", "lenet-5", "--data", "nowhere", "--out", tmp_path / "out", "--dry-run")
    assert "128 images a step, shifted by up to 3 pixels, and" in tprune(*fresh, "--shift", 3).out
    assert "0 to 27 are legal" in tprune(*fresh, "--shift", 28).err


def test_structural_needs_a_network_that_was_trained_so(lenet: Path, mnist: Path, tmp_path: Path):
    call = ("--method", "deephoyer", "--data", mnist, *RUN, "--epochs", 1)
    assert tprune("cnn", "train", "--from", lenet, *call, "--out", tmp_path / "single").code == 0
    call = ("--data", mnist, *RUN, "--cut", 1, "--structural", "--out", tmp_path / "out")
    tprune("cnn", "compress", tmp_path / "single", *call).check_failed(2, "was not trained so")


def test_a_network_of_another_size_is_told_at_evaluation(lenet: Path, cifar: Path):
    told = tprune("cnn", "evaluate", lenet, "--data", cifar, "--threads", 1)
    told.check_failed(2, "images are 3 x 32 x 32 (channels, height, width); lenet-300-100 takes 1 x 28 x 28")


def test_damaged_weights_are_told(lenet: Path, mnist: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(lenet, copy)
    (copy / "model.safetensors").write_bytes(b"x" * 100)
    told = tprune("cnn", "evaluate", copy, "--data", mnist, "--threads", 1)
    told.check_failed(2, "is damaged or belongs to another network")


def test_records_of_the_artefact_give_times_and_memory_to_the_table(
    lenet: Path, mnist: Path, tmp_path: Path, monkeypatch
):
    from tests.support import runs

    of = runs.model("lenet", "dense", 1.0) | {"id": network.load(lenet).id}
    records = (
        runs.write(tmp_path, records=(runs.timed(of, 0, [0.5, 0.25, 0.75]), runs.weighed(of, 2048))) / "records.jsonl"
    )
    call = ("--data", mnist, "--records", records, "--results", tmp_path / "rows.json", "--threads", 1, "--json")
    (row,) = tprune("cnn", "evaluate", lenet, *call).json["rows"]
    assert (row["median_ms"], row["dense_ms"], row["peak_mib"], row["dense_peak_mib"]) == (0.5, 0.5, 2.0, 2.0)
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))["rows"] == [row]


def test_a_figure_is_a_png(lenet: Path, mnist: Path, tmp_path: Path):
    call = ("cnn", "evaluate", lenet, "--data", mnist, "--figure", tmp_path / "curve.pdf", "--threads", 1)
    tprune(*call).check_failed(2, "must end in .png")


def test_a_network_of_ones_own_is_for_python_alone(lenet: Path, mnist: Path, tmp_path: Path):
    held = network.load(lenet)
    held.net = "mine"
    network.save(held, tmp_path / "own")
    told = tprune("cnn", "evaluate", tmp_path / "own", "--data", mnist, "--threads", 1)
    told.check_failed(2, "own' holds 'mine', which is not a named network (lenet-300-100, ")
    with pytest.raises(BadInput, match=r"build\(10\) failed to return a network of 10 classes: .*positional"):
        network.load(tmp_path / "own", build=lambda: held.module)


def test_a_figure_without_a_compressed_network_is_refused(lenet: Path, mnist: Path, tmp_path: Path):
    call = ("cnn", "evaluate", lenet, "--data", mnist, "--figure", tmp_path / "curve.png", "--threads", 1)
    tprune(*call).check_failed(2, "none of these was compressed")
    assert not list(tmp_path.iterdir())
