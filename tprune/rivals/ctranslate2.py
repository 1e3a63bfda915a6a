"""CTranslate2 as a benchmark runs it: `python -m tprune.rivals.ctranslate2 seq2seq ...`, the runner's contract.

One `translate_batch` of one sentence at a time on `intra_threads` threads, one translator; which kernels it takes for
this CPU is left to it (its `CT2_*` variables pass through). Its vocabulary is of strings: ids are turned into them, and
back, outside what is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

# Its package imports them where they are installed, to convert models: memory that translating does not need.
sys.modules |= dict.fromkeys(("torch", "transformers"))  # type: ignore[arg-type]

import ctranslate2  # noqa: E402

from tprune.bench.compare import rivals  # noqa: E402
from tprune.bench.runner import loop  # noqa: E402

COMPUTE = {"fp32": "float32", "int8": "int8"}


def opens(asked: argparse.Namespace) -> loop.Opened:
    """Open a folder of `tprune.rivals.write.write_ctranslate2` with as many threads as are asked for."""
    rival = rivals.read(asked.artefact)
    words: list[str] = json.loads((asked.artefact / "shared_vocabulary.json").read_text(encoding="utf-8"))
    ids_of = {word: number for number, word in enumerate(words)}
    translator = ctranslate2.Translator(
        str(asked.artefact),
        device="cpu",
        compute_type=COMPUTE[rival.precision],
        inter_threads=1,
        intra_threads=asked.threads,
    )
    # Its own defaults would cut long sources and never say `</s>` at once; HuggingFace does neither.
    options: dict[str, Any] = {"max_input_length": 0, "min_decoding_length": 0}
    options |= {"beam_size": asked.beams, "return_end_token": True}

    def translate(ids: list[int], limit: int) -> loop.Translated:
        source = [words[number] for number in ids]
        begin = time.perf_counter_ns()
        result = translator.translate_batch([source], max_decoding_length=limit - 1, **options)
        took = time.perf_counter_ns() - begin
        output = [ids_of[word] for word in result[0].hypotheses[0]]
        return loop.Translated(output, took, 0, took, took, len(output))

    return loop.Opened(rival.id, rival.max_target, "ctranslate2", translate)


if __name__ == "__main__":
    raise SystemExit(loop.main(program="rival-ctranslate2", opens=opens))
