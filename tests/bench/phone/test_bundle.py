"""Bundles: put together and refused by made-up parts; and the real ones started, natively and under qemu."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from importlib import metadata

import pytest

from tests.support.command import contents
from tests.support.elves import elf
from tprune.base.errors import BadInput, WorkFailed
from tprune.base.stamp import file_sha256
from tprune.bench.libraries import abi, cache, glibc, wheels
from tprune.bench.phone import bundle
from tprune.bench.runner import build
from tprune.bench.runner.contract import PROGRAMS

ARM, INTEL = abi.named("arm64-v8a"), abi.named("x86_64")
LIBC = {
    ARM.loader: elf(soname=ARM.loader, provides=["GLIBC_2.17"]),
    "libc.so.6": elf(soname="libc.so.6", needed=[ARM.loader], provides=["GLIBC_2.17", "GLIBC_2.36"]),
    "libstdc++.so.6": elf(soname="libstdc++.so.6", needed=["libc.so.6"], provides=["GLIBCXX_3.4", "GLIBCXX_3.4.30"]),
    "libdl.so.2": elf(soname="libdl.so.2", needed=["libc.so.6"]),
}
PROGRAM = elf(needed=["libstdc++.so.6"], requires={"libc.so.6": ["GLIBC_2.36"]})
ENGINE = elf(soname="libonnxruntime.so.1", needed=["libstdc++.so.6"], requires={"libstdc++.so.6": ["GLIBCXX_3.4"]})


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Return the folder whose files are the parts of a bundle: program, C library, engine; the cache is empty."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, content in {"tprune-ort": PROGRAM, **LIBC}.items():
        (folder / name).write_bytes(content)
    found = glibc.Glibc({name: folder / name for name in LIBC}, "made up")
    monkeypatch.setattr(glibc, "find", lambda abi: found)
    monkeypatch.setattr(build, "ensure", lambda runtime, abi: folder / PROGRAMS[runtime])
    (folder / "libonnxruntime.so.1.31.1").write_bytes(ENGINE)
    wheel = cache.Entry(folder, {"libonnxruntime.so.1.31.1": "", "version.py": ""}, {"origin": "made up"})
    monkeypatch.setattr(wheels, "files", lambda package, abi: wheel)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_what_a_bundle_holds(parts):
    told = []
    made = bundle.assemble("arm64-v8a", "onnxruntime", progress=lambda *words: told.append(words))
    names = {"tprune-ort", "libonnxruntime.so.1", "libstdc++.so.6", "libc.so.6", ARM.loader}  # nobody needs libdl
    assert set(made.files) == names
    assert {path.name for path in made.folder.iterdir()} == names | {"bundle.json"}
    assert all(file_sha256(made.folder / name) == digest for name, digest in made.files.items())
    assert all(os.access(made.folder / name, os.X_OK) for name in names)
    document = json.loads((made.folder / "bundle.json").read_text(encoding="utf-8"))
    assert (document["schema"], document["kind"], document["files"]) == (1, "bundle", made.files)
    assert document["facts"] == made.versions
    assert made.versions["onnxruntime"] == metadata.version("onnxruntime")
    assert (made.versions["GLIBC"], made.versions["GLIBCXX"], made.versions["libc"]) == ("2.36", "3.4.30", "made up")
    assert [step[:2] for step in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_its_command(parts):
    made = bundle.assemble("arm64-v8a", "onnxruntime")
    assert made.command() == (f"./{ARM.loader}", "--library-path", ".", "./tprune-ort")
    assert made.command("/b", "/b") == (f"/b/{ARM.loader}", "--library-path", "/b", "/b/tprune-ort")
    assert made.command("../l") == (f"../l/{ARM.loader}", "--library-path", ".:../l", "./tprune-ort")


def test_the_second_time_it_is_taken_from_the_cache(parts, monkeypatch):
    made = bundle.assemble("arm64-v8a", "onnxruntime")
    monkeypatch.setattr(bundle, "gather", None)
    assert bundle.assemble("arm64-v8a", "onnxruntime") == made


def test_another_program_is_another_bundle(parts):
    made = bundle.assemble("arm64-v8a", "onnxruntime")
    (parts / "tprune-ort").write_bytes(elf(needed=["libc.so.6"]))
    other = bundle.assemble("arm64-v8a", "onnxruntime")
    assert other.id != made.id
    assert other.folder != made.folder
    assert made.folder.is_dir()


def test_a_damaged_one_is_made_again(parts):
    made = bundle.assemble("arm64-v8a", "onnxruntime")
    (made.folder / "libc.so.6").write_bytes(b"")
    assert bundle.assemble("arm64-v8a", "onnxruntime") == made
    assert file_sha256(made.folder / "libc.so.6") == made.files["libc.so.6"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tprune-ort", elf("x86_64", needed=["libc.so.6"]), "tprune-ort is for x86_64, not for aarch64"),
        ("tprune-ort", elf(needed=["libfoo.so.1"]), "tprune-ort needs libfoo.so.1, which neither the engine's package"),
        (
            "tprune-ort",
            elf(needed=["../up.so"]),
            "tprune-ort needs '../up.so', a path, which means nothing on a device",
        ),
        ("tprune-ort", PROGRAM[:100], "tprune-ort: it is cut off or damaged"),
        ("tprune-ort", b"#!/bin/sh", "tprune-ort: it is not a 64-bit little-endian ELF file"),
        (
            "tprune-ort",
            elf(requires={"libc.so.6": ["GLIBC_2.38", "GLIBC_2.36"]}, needed=["libc.so.6"]),
            "tprune-ort needs GLIBC_2.38 of libc.so.6, which the bundled one lacks: build the runner on this machine",
        ),
        (
            "libc.so.6",
            elf(soname="libc.so.6", provides=["GLIBC_2.36"], alignment=4096),
            r"libc.so.6 is aligned to 4096 bytes; arm64-v8a needs 16384 \(16 KiB pages\)",
        ),
        (
            "libstdc++.so.6",
            elf(soname="libstdc++.so.6", provides=[]),
            "needs GLIBCXX_3.4 of libstdc[+][+].so.6, which",
        ),
        ("libstdc++.so.6", LIBC["libstdc++.so.6"] + bytes(45_000_000), "the bundle is 45.0 MB; 45 MB is the most"),
    ],
)
def test_what_would_not_run_is_refused(parts, name, content, message):
    (parts / name).write_bytes(content)
    with pytest.raises(WorkFailed, match=message):
        bundle.assemble("arm64-v8a", "onnxruntime")
    assert not [name for name in contents(cache.folder() / "bundles") if not name.endswith(".lock")]


def test_unknown_names():
    with pytest.raises(BadInput, match="ABI 'armeabi-v7a': there are bundles for arm64-v8a and x86_64 only"):
        bundle.assemble("armeabi-v7a", "onnxruntime")
    with pytest.raises(BadInput, match="runtime 'tflite': must be onnxruntime or executorch"):
        bundle.assemble("x86_64", "tflite")


def test_all_that_is_known_of_it_is_printed(parts, capsys):
    bundle.main(["arm64-v8a", "onnxruntime"])
    made, told = bundle.assemble("arm64-v8a", "onnxruntime"), json.loads(capsys.readouterr().out)
    assert told == {"folder": str(made.folder), "id": made.id, "versions": made.versions, "files": made.files}
    with pytest.raises(SystemExit, match="usage: python -m tprune.bench.phone.bundle ABI RUNTIME"):
        bundle.main([])
    with pytest.raises(SystemExit, match="ABI 'mips': there are bundles"):
        bundle.main(["mips", "onnxruntime"])


def test_the_id_changes_with_names_and_contents():
    assert bundle.identity({"a": "1", "b": "2"}) == bundle.identity({"b": "2", "a": "1"})
    assert len({bundle.identity(files) for files in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {})}) == 4


# The real ones


def real(kind: abi.Abi, runtime: str) -> bundle.Bundle:
    """Return a real bundle, where no download and no build is needed for it."""
    if build.find(runtime, kind) is None:
        pytest.skip(f"needs {PROGRAMS[runtime]} for {kind.name}: make runner")
    if glibc.of_compiler(kind) is None:
        pytest.skip(f"needs g++-{kind.triple}")
    if not kind.native and cache.find("wheel", wheels.name(runtime, kind)) is None:
        pytest.skip(
            f"needs the {kind.machine} wheel of {runtime}: python -m tprune.bench.phone.bundle {kind.name} {runtime}"
        )
    return bundle.assemble(kind.name, runtime)


def version_of(made: bundle.Bundle, *before: str) -> dict[str, str]:
    done = subprocess.run(
        [*before, *made.command(), "--version"],
        cwd=made.folder,
        env={"ORT_DISABLE_TELEMETRY": "1", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("runtime", PROGRAMS)
def test_the_real_bundle_of_this_machine_runs_by_its_own_libraries(runtime):
    if not INTEL.native:
        pytest.skip("needs Linux on x86-64")
    if runtime == "executorch":
        pytest.importorskip("executorch")
    made = real(INTEL, runtime)
    found = version_of(made)
    assert (found["program"], found["engine"]) == (PROGRAMS[runtime], runtime)
    assert found["engine_version"].startswith(metadata.version(runtime))
    loaded = subprocess.run(
        [*made.command()[:-1], "--list", made.command()[-1]],
        cwd=made.folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [line.partition("=> ")[2].split()[0] for line in loaded.splitlines() if "=>" in line]
    assert paths
    assert [path for path in paths if not path.startswith("./")] == []


CPUINFO = "processor\t: 0\nFeatures\t: fp asimd aes atomics fphp asimdhp asimdrdm asimddp\nCPU implementer\t: 0x41\n"
CPUINFO += "CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd0b\nCPU revision\t: 0\n"


@pytest.mark.parametrize("runtime", PROGRAMS)
def test_the_real_arm64_bundle_runs_under_qemu(runtime, tmp_path):
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if qemu is None:
        pytest.skip("needs qemu-aarch64-static (Debian: qemu-user-static)")
    made = real(ARM, runtime)
    # Older qemus show the host's /proc/cpuinfo, at which ONNX Runtime's CPU detection crashes.
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(CPUINFO, encoding="utf-8")
    found = version_of(made, qemu, "-cpu", "cortex-a76", "-L", str(tmp_path))
    assert (found["program"], found["engine"]) == (PROGRAMS[runtime], runtime)
    assert found["engine_version"].startswith(metadata.version(runtime))


@pytest.mark.parametrize("runtime", PROGRAMS)
def test_a_cached_bundle_is_there_at_once(runtime, monkeypatch):
    """Nothing is built, fetched or copied: only the compiler is asked where its C library is."""
    made, asked, start = real(ARM, runtime), [], subprocess.Popen.__init__

    def started(process, command, *more, **options):
        asked.append(list(command[1:]))
        start(process, command, *more, **options)

    def never(*_, **__):
        raise AssertionError("what is in the cache was made again")

    monkeypatch.setattr(subprocess.Popen, "__init__", started)
    for module, name in ((bundle, "gather"), (urllib.request, "urlopen"), (wheels, "files")):
        monkeypatch.setattr(module, name, never)
    assert bundle.assemble("arm64-v8a", runtime) == made
    assert asked == [["-print-search-dirs"]]
