"""Feed the runner mutated manifests, programs, ids, .npy files and arguments; see that it never crashes or hangs.

    cmake --preset asan && cmake --build --preset asan --target tprune-fuzz --target tprune-fuzz-ort
    python tests/fuzz.py --count 10000 [--artefact EXPORTED]

Every case must end with an exit code from 0 to 3, one line on stderr unless it is 0, and a report that agrees. Most
go to tprune-fuzz, whose engine is a stub; with a (tiny) ONNX artefact one in nine goes to tprune-fuzz-ort, in
which ONNX Runtime parses the mutated graph. Case i of a seed is always the same. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUILD = Path(__file__).resolve().parents[1] / "build" / "asan"
HANG = 20.0  # seconds: a healthy case takes milliseconds
NUMBERS = (-(2**63), -1, 0, 1, 2, 3, 5, 16, 17, 255, 4096, 65536, 2**24, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**64)
VALUES: tuple[Any, ...] = (*NUMBERS, 1.5, 1e308, True, False, None, "", "past", "cache", "batch", "source", "token")
OBJECTS: tuple[Any, ...] = ([], {}, [[[[]]]], {"a": {"b": []}}, "x" * 3000, "../x", "a\x00b", "\ud7ff\u00e9", ["batch"])
SNIPPETS = [
    *(str(number).encode() for number in NUMBERS),
    *(
        b"1e999",
        b"null",
        b"NaN",
        b"\\ud800",
        b'"',
        b"'",
        b"[",
        b"{",
        b"]",
        b"}",
        b",",
        b":",
        b" ",
        b"\n",
        b"\r\n",
        b"\0",
    ),
    *(b"\xff\xff\xff\xff", b"\x80", b"[" * 200, b"0" * 300, b"-", b"'descr': '<f4'", b"'shape': (-1,", b"True"),
]
Case = Callable[[random.Random, Path], list[str]]  # writes a case's files to a folder, returns the words of its call


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return bytes with one to four small damages."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + chance.choice((1, 4, 64, 100_000)))
        middle = data[at:end]
        change = chance.randrange(6)
        if change == 0 and middle:
            middle = bytes([middle[0] ^ (1 << chance.randrange(8))]) + middle[1:]
        elif change == 1:
            middle = b""
        elif change == 2:
            middle += middle
        elif change == 3:
            middle += chance.choice(SNIPPETS)
        elif change == 4:
            middle = chance.choice(SNIPPETS)
        else:
            middle = bytes(chance.randrange(256) for _ in range(min(len(middle), 16)))
        data = data[:at] + middle + data[end:]
    return data


def places(node: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of every value below a JSON node."""
    found = []
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        found += [(node, key), *places(node[key])]
    return found


def rearranged(chance: random.Random, document: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON document with one to three values replaced, dropped or exchanged."""
    document = json.loads(json.dumps(document))
    for _ in range(chance.choice((1, 1, 2, 3))):
        known = places(document)
        if not known:
            break
        container, key = chance.choice(known)
        change = chance.randrange(5)
        if change == 0:
            del container[key]
        elif change == 1:
            other, name = chance.choice(known)
            container[key] = json.loads(json.dumps(other[name]))
        elif change == 2 and isinstance(container[key], list):
            container[key] = container[key] * chance.choice((2, 50))
        else:
            container[key] = chance.choice(VALUES if change == 3 else OBJECTS)
    return document


def fitted(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a manifest whose digests and id are those of the files that lie in `folder`, as far as it names them."""
    files = document.get("files")
    if isinstance(files, dict):
        for name, entry in files.items():
            if isinstance(entry, dict) and name in ("encoder.onnx", "decoder_step.onnx", "model.onnx"):
                data = (folder / name).read_bytes()
                entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        lines = sorted(f"{name} {e['sha256']}\n" for name, e in files.items() if isinstance(e, dict) and "sha256" in e)
        document["id"] = hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
    return document


def port(name: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    """Return one tensor as a manifest describes it."""
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def manifest(rows: bool) -> dict[str, Any]:
    """Return the manifest of a small artefact that extends its caches in place, or of one that gives their new rows."""
    batch: int | str = 1 if rows else "batch"
    cross = [port(f"cross_{part}_0", "float32", batch, 2, "source", 3) for part in ("key", "value")]
    mask = port("mask", "float32", batch, 1, 1, "source")
    if rows:
        past = [port(f"past_{part}_0", "float32", 1, "past", 2, 4) for part in ("key", "value")]
        new = [port(f"present_{part}_0", "float32", 1, 1, 2, 4) for part in ("key", "value")]
    else:
        past = [port(f"past_{part}_0", "float32", batch, 2, "cache", 4) for part in ("key", "value")]
        new = [port(f"present_{part}_0", "float32", batch, 2, "cache", 4) for part in ("key", "value")]
    ids = [port(name, "int64", batch, "source") for name in ("input_ids", "attention_mask")[: 1 if rows else 2]]
    numbers = [port("token", "int64", batch), port("position", "int64", 1)]
    return {
        "schema": 1,
        "kind": "artefact",
        "runtime": "onnxruntime",
        "files": {"encoder.onnx": {}, "decoder_step.onnx": {}},
        "tensors": {
            "encoder": {"inputs": ids, "outputs": [mask, *cross]},
            "decoder_step": {
                "inputs": [*numbers, mask, *past, *cross],
                "outputs": [port("logits", "float32", batch, 17), *new],
            },
        },
        "special": {"start": 16, "eos": 0, "pad": 16, "unk": 1, "forced_eos": 0},
        "scoring": {"length_penalty": 0.5, "early_stopping": "never" if rows else True},
        "limits": {"source": 9, "target": 12},
        "output_ids": [*range(0, 32, 2), 111] if rows else None,
    } | ({"special": {"start": 111, "eos": 0, "pad": 111, "unk": 2, "forced_eos": None}} if rows else {})


def program(tensors: dict[str, Any]) -> bytes:
    """Return the stub engine's program for a graph of a manifest."""
    lines = []
    for side, ports in (("in", tensors["inputs"]), ("out", tensors["outputs"])):
        for one in ports:
            sizes = (str(size if isinstance(size, int) else -1) for size in one["shape"])
            lines.append(f"{side} {one['name']} {one['dtype']} {' '.join(sizes)}\n")
    return "".join(lines).encode()


IDS = b"5 6 7 0\n8 0\n1 2 3 4 5 6 7 8 0\n0\n"


def npy(descr: str, shape: tuple[int, ...], body: bytes) -> bytes:
    """Return a .npy file."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def seq2seq(chance: random.Random, folder: Path, rows: bool) -> list[str]:
    """Return the words of a call on the artefact in `folder`."""
    settings = {
        "--beams": chance.choice((1, 1, 2, 5)),
        "--max-length": chance.choice((2, 5, 12)),
        "--passes": 1 if rows else chance.choice((1, 2)),
        "--warmup": chance.choice((0, 2)),
    }
    words = ["seq2seq", "--artefact", str(folder), "--ids", str(folder / "in.ids"), "--out-dir", str(folder / "out")]
    words += [str(word) for pair in settings.items() for word in pair]
    return words + (["--library", "rows"] if rows and chance.random() < 0.7 else [])


def write_artefact(folder: Path, document: dict[str, Any]) -> None:
    """Write the stub programs of a sound manifest, and ids."""
    for graph, tensors in document["tensors"].items():
        (folder / f"{graph}.onnx").write_bytes(program(tensors))
    (folder / "in.ids").write_bytes(IDS)


def manifest_case(chance: random.Random, folder: Path) -> list[str]:
    rows = chance.random() < 0.5
    document = manifest(rows)
    write_artefact(folder, document)
    if chance.random() < 0.3:
        (folder / "manifest.json").write_bytes(mutated(chance, json.dumps(fitted(document, folder)).encode()))
    else:
        damaged = rearranged(chance, document)
        if chance.random() < 0.5 and isinstance(damaged.get("tensors"), dict):  # the programs say the same nonsense
            for graph in set(damaged["tensors"]) & {"encoder", "decoder_step"}:
                try:
                    (folder / f"{graph}.onnx").write_bytes(program(damaged["tensors"][graph]))
                except (TypeError, KeyError):
                    pass
        (folder / "manifest.json").write_text(json.dumps(fitted(damaged, folder)))
    return seq2seq(chance, folder, rows)


def program_case(chance: random.Random, folder: Path) -> list[str]:
    rows = chance.random() < 0.5
    document = manifest(rows)
    write_artefact(folder, document)
    graph = folder / f"{chance.choice(('encoder', 'decoder_step'))}.onnx"
    whole = graph.read_bytes()
    sound = fitted(document, folder)
    graph.write_bytes(mutated(chance, whole))
    (folder / "manifest.json").write_text(json.dumps(sound if chance.random() < 0.2 else fitted(document, folder)))
    return seq2seq(chance, folder, rows)


def ids_case(chance: random.Random, folder: Path) -> list[str]:
    rows = chance.random() < 0.5
    document = manifest(rows)
    write_artefact(folder, document)
    (folder / "manifest.json").write_text(json.dumps(fitted(document, folder)))
    (folder / "in.ids").write_bytes(mutated(chance, IDS * chance.choice((1, 20))))
    return seq2seq(chance, folder, rows)


def npy_case(chance: random.Random, folder: Path) -> list[str]:
    (folder / "g.onnx").write_bytes(b"in x float32 -1 3\nin i int64 2\nout y float32 -1 3\nout / bool 2 2\n")
    (folder / "x.npy").write_bytes(npy("<f4", (2, 3), bytes(24)))
    (folder / "i.npy").write_bytes(npy("<i8", (2,), bytes(16)))
    for name in chance.choice((["x"], ["i"], ["x", "i"], ["g"])):
        path = folder / ("g.onnx" if name == "g" else f"{name}.npy")
        path.write_bytes(mutated(chance, path.read_bytes()))
    given = [f"{name}={folder / name}.npy" for name in ("x", "i")]
    words = ["graph", "--model", str(folder / "g.onnx"), "--in", given[0], "--in", given[1], "--iterations", "2"]
    return [*words, "--out-dir", str(folder / "out"), *(["--library", "rows"] if chance.random() < 0.5 else [])]


def images_case(chance: random.Random, folder: Path) -> list[str]:
    graph = {"inputs": [port("image", "float32", 1, 2, 3, 4)], "outputs": [port("logits", "float32", 1, 5)]}
    document = {"schema": 1, "kind": "artefact", "task": "images", "runtime": "onnxruntime"}
    document |= {"files": {"model.onnx": {}}, "tensors": {"forward": graph}}
    (folder / "model.onnx").write_bytes(program(graph))
    (folder / "images.npy").write_bytes(npy("|u1", (3, 2, 3, 4), bytes(range(72))))
    damaged = chance.choice(("manifest.json", "images.npy", "model.onnx"))
    if damaged == "manifest.json" and chance.random() < 0.7:
        document = rearranged(chance, document)
    elif damaged != "manifest.json":
        (folder / damaged).write_bytes(mutated(chance, (folder / damaged).read_bytes()))
    (folder / "manifest.json").write_text(json.dumps(fitted(document, folder)))
    words = ["classify", "--artefact", str(folder), "--images", str(folder / "images.npy"), "--passes", "2"]
    return [*words, "--out-dir", str(folder / "out"), *(["--library", "rows"] if chance.random() < 0.5 else [])]


def words_case(chance: random.Random, folder: Path) -> list[str]:
    words = ids_case(chance, folder) if chance.random() < 0.5 else npy_case(chance, folder)
    at = chance.randrange(len(words))
    kept = ("--out-dir", str(folder / "out"))  # so that nothing is written elsewhere
    if words[at] not in kept:
        damaged = mutated(chance, words[at].encode()).replace(b"\t", b" ").replace(b"\n", b" ").replace(b"\0", b" ")
        words[at] = damaged.decode(errors="replace")
    return [word[:4000] for word in words if not word.startswith("--gap") and not word.endswith("-ms")]


def onnx_case(artefact: Path) -> Case:
    """Return a case in which ONNX Runtime reads a mutated graph of a real artefact."""

    def write(chance: random.Random, folder: Path) -> list[str]:
        for name in ("encoder.onnx", "decoder_step.onnx"):
            shutil.copy(artefact / name, folder)
        document = json.loads((artefact / "manifest.json").read_text(encoding="utf-8"))
        if chance.random() < 0.7:
            graph = folder / chance.choice(("encoder.onnx", "decoder_step.onnx"))
            graph.write_bytes(mutated(chance, graph.read_bytes()))
        else:
            document = rearranged(chance, {key: document[key] for key in document if key != "output_ids"})
        (folder / "manifest.json").write_text(json.dumps(fitted(document, folder)))
        (folder / "in.ids").write_bytes(IDS)
        return seq2seq(chance, folder, rows=False)

    return write


@dataclass
class Target:
    """A running fuzz program; it is started again after it broke."""

    program: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    said: bytes = b""

    def run(self, words: list[str]) -> tuple[int | None, list[str]]:
        """Return the exit code of a call, None for a crash or hang, and the lines it said."""
        if self.process is None:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                [str(self.program)], stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, env=self.environment
            )
        assert self.process.stdin is not None
        self.said = b""
        try:
            self.process.stdin.write("\t".join(words).encode() + b"\n")
            self.process.stdin.flush()
            if self._wait():
                *lines, mark = self.said.decode(errors="replace").splitlines()
                return int(mark.removeprefix("== ")), lines
        except BrokenPipeError:
            pass
        self.process.kill()
        self.process.wait()
        self.process = None
        return None, self.said.decode(errors="replace").splitlines()

    def end(self) -> int:
        """Close its stdin and return its exit code: not 0 when something leaked."""
        if self.process is None:
            return 0
        self.process.communicate()
        return self.process.returncode

    def _wait(self) -> bool:
        """Read what it says until the mark that ends a call; False when it died or was silent for too long."""
        assert self.process is not None
        assert self.process.stderr is not None
        source, deadline = self.process.stderr.fileno(), time.monotonic() + HANG
        while not (self.said.startswith(b"== ") or b"\n== " in self.said) or not self.said.endswith(b"\n"):
            if not select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.said += f"\nno end after {HANG} s\n".encode()
                return False
            block = os.read(source, 1 << 16)
            if not block:
                return False
            self.said += block
        return True


def complaint(code: int | None, lines: list[str], folder: Path) -> str:
    """Return what is wrong with how a case ended, "" when nothing is."""
    if code is None:
        return "crash or hang"
    if code not in (0, 1, 2, 3):
        return f"exit code {code}"
    if len(lines) != (code != 0) or any(not line.startswith("tprune-") for line in lines):
        return f"exit code {code} with {len(lines)} lines"
    path = folder / "out" / "report.json"
    if not path.exists():
        return "" if code else "no report"
    report = json.loads(path.read_text(encoding="utf-8"))
    return "" if report["ok"] is (code == 0) else "the report says otherwise"


@dataclass
class Outcome:
    """What a fuzzing has found: exit codes by kind of case, and the cases that went wrong."""

    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def fuzz(count: int, *, seed: int = 0, build: Path = BUILD, artefact: Path | None = None) -> Outcome:
    """Run `count` cases; `artefact`: an exported one for ONNX Runtime, which TPRUNE_ORT_LIBRARY finds, to read."""
    environment = {**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    stub = Target(build / "tprune-fuzz", environment)
    real = Target(build / "tprune-fuzz-ort", environment | {"LSAN_OPTIONS": "detect_leaks=0"})
    twice: list[tuple[str, Case, Target]] = [("manifest", manifest_case, stub), ("npy", npy_case, stub)]
    kinds = [*twice, *twice, ("program", program_case, stub), ("ids", ids_case, stub), ("words", words_case, stub)]
    kinds.append(("images", images_case, stub))
    kinds.append(("onnx", onnx_case(artefact), real) if artefact else kinds[0])
    outcome = Outcome()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as work:
        for number in range(count):
            kind, write, target = kinds[number % len(kinds)]
            folder = Path(work) / "case"
            folder.mkdir()
            words = write(random.Random(f"{seed} {number}"), folder)
            code, lines = target.run(words)
            if wrong := complaint(code, lines, folder):
                outcome.failures.append(f"case {number} ({kind}): {wrong}: {' | '.join(lines[-40:])}")
            else:
                outcome.codes[kind, code or 0] += 1
            shutil.rmtree(folder)
    if stub.end() or real.end():
        outcome.failures.append("a fuzz program ended badly: something leaked")
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--artefact", type=Path)
    settings = parser.parse_args()
    begin = time.monotonic()
    outcome = fuzz(settings.count, seed=settings.seed, artefact=settings.artefact)
    for (kind, code), times in sorted(outcome.codes.items()):
        print(f"{kind:10s} exit {code}: {times}")  # noqa: T201 - it is a program
    print(f"{settings.count} cases in {time.monotonic() - begin:.0f} s, {len(outcome.failures)} failures")  # noqa: T201
    sys.exit("\n".join(outcome.failures[:20]) or None)


if __name__ == "__main__":
    main()
