"""BLEU of artefacts on emulated processors, by the runner itself: makes bench/results/multi30k-int8-processors.json.

    python -m tests.emulated int8-onnx int8-executorch --data multi30k --limit Haswell=100 Nehalem=100 \
        --work out --out results.json

Tokens are exact in an emulator, times mean nothing. Sentences go in chunks that are kept in `--work`, so that a killed
run goes on. One sentence of the Multi30k model takes 0.2 to 4 seconds, by processor. The first row of an artefact is
this machine's own; `same_tokens` counts the sentences that have its tokens.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from transformers import MarianTokenizer

from tests.support.native import CORTEX_A76
from tprune.base import processor
from tprune.bench.phone.bundle import assemble
from tprune.bench.report import results
from tprune.bench.runner import build
from tprune.bench.runner.contract import host_environment, read_ids, write_ids
from tprune.export.manifest import Manifest
from tprune.marian import corpus
from tprune.marian.quality import score
from tprune.marian.translate import decode, encode

CHUNK = 50
HASWELL = "Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm"  # without what the emulator lacks
# name -> (emulator, its words, instruction set)
PROCESSORS = {
    "here": ("", (), processor.best(processor.here())),
    "Nehalem": ("qemu-x86_64-static", ("-cpu", "Nehalem"), "sse4.1"),
    "Haswell": ("qemu-x86_64-static", ("-cpu", HASWELL), "avx2"),
    "Cortex-A76": ("qemu-aarch64-static", ("-cpu", "cortex-a76"), "neon-dotprod"),
}


def command(name: str, runtime: str, work: Path) -> tuple[list[str], dict[str, str]]:
    """Return the words that start the runner of a runtime on a processor, and its environment."""
    emulator, words, _ = PROCESSORS[name]
    if emulator and shutil.which(emulator) is None:
        sys.exit(f"needs {emulator} (Debian: qemu-user-static)")
    if name != "Cortex-A76":
        return [*filter(None, [emulator]), *words, str(build.ensure(runtime))], host_environment(runtime)
    (work / "arm" / "proc").mkdir(parents=True, exist_ok=True)
    (work / "arm" / "proc" / "cpuinfo").write_text(CORTEX_A76)
    bundle = assemble("arm64-v8a", runtime)
    return [emulator, *words, "-L", str(work / "arm"), *bundle.command(str(bundle.folder), str(bundle.folder))], {}


def translated(name: str, artefact: Path, sources: list[tuple[int, ...]], work: Path) -> list[list[int]]:
    """Return the target ids of all sources; chunks that are in `work` are taken from there."""
    manifest = Manifest.read(artefact)
    start, environment = command(name, manifest.runtime, work)
    found: list[list[int]] = []
    for at in range(0, len(sources), CHUNK):
        kept = work / f"{manifest.id}-{name}-{at}.json"
        if not kept.exists():
            write_ids(work / "in.ids", sources[at : at + CHUNK])
            job = [
                "seq2seq",
                "--artefact",
                str(artefact),
                "--ids",
                str(work / "in.ids"),
                "--out-dir",
                str(work / "run"),
            ]
            environment = {"HOME": str(work), **environment}
            subprocess.run([*start, *job, "--nonce", "n", "--threads", "1"], env=environment, check=True)
            kept.write_text(json.dumps([list(map(int, ids)) for ids in read_ids(work / "run" / "output.ids")]))
        found += json.loads(kept.read_text())
        print(f"{artefact.name} on {name}: {len(found)} of {len(sources)}", file=sys.stderr)  # noqa: T201
    return found


def main() -> None:
    """Translate on every processor and write one row for each."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("artefacts", nargs="+", type=Path)
    words.add_argument("--data", required=True)
    words.add_argument("--split", default="test_2016_flickr")
    words.add_argument("--limit", nargs="*", default=[], metavar="PROCESSOR=N", help="sentences at most")
    words.add_argument("--processors", nargs="+", default=list(PROCESSORS), choices=list(PROCESSORS))
    words.add_argument("--work", type=Path, required=True)
    words.add_argument("--out", type=Path, required=True)
    asked = words.parse_args()
    limits = {name: int(count) for name, _, count in (one.partition("=") for one in asked.limit)}
    asked.work.mkdir(parents=True, exist_ok=True)
    text = corpus.load(asked.data, split=asked.split)
    rows: list[dict[str, Any]] = []
    names = [*(one.name for one in asked.artefacts), "--data", Path(asked.data).name, "--split", asked.split]
    chosen = [*(["--limit", *asked.limit] if asked.limit else []), "--processors", *asked.processors]
    rerun = shlex.join(["python", "-m", "tests.emulated", *names, *chosen, "--work", "out", "--out", asked.out.name])
    for artefact in asked.artefacts:
        manifest, tokenizer = Manifest.read(artefact), MarianTokenizer.from_pretrained(str(artefact))
        sources = list(encode(tokenizer, text.source, limit=manifest.limits.source)[0])
        own = translated("here", artefact, sources, asked.work)
        for name in ["here", *(one for one in asked.processors if one != "here")]:
            count = len(sources) if name == "here" else limits.get(name, len(sources))
            ids = own if name == "here" else translated(name, artefact, sources[:count], asked.work)
            quality, same = (
                score(decode(tokenizer, one), text.target[:count], language=text.language) for one in (ids, own[:count])
            )
            rows.append({
                "runtime": manifest.runtime, "precision": manifest.precision, "target_cpu": manifest.target_cpu,
                "processor": name if name != "here" else processor.here().model, "emulated": name != "here",
                "instruction_set": PROCESSORS[name][2], "sentences": count, "bleu": quality.bleu,
                "bleu_here": same.bleu, "same_tokens": sum(a == b for a, b in zip(ids, own, strict=False)),
                "bytes": sum(file.bytes for file in manifest.files.values()),
                "command": rerun,
            })  # fmt: skip
    results.write(asked.out, rows, inputs={one.name: Manifest.read(one).id for one in asked.artefacts})


if __name__ == "__main__":
    main()
