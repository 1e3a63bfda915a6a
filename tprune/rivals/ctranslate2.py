"""CTranslate2 behind the runner's contract: `python -m tprune.rivals.ctranslate2 seq2seq ...`.

One `translate_batch` per sentence, one translator with `intra_threads` threads. CTranslate2 chooses the kernels for
this CPU; its `CT2_*` variables pass through. Its vocabulary consists of strings; ids are converted outside the
timed part.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

# CTranslate2 imports them if installed, for its converters. Translating does not need that memory.
sys.modules |= dict.fromkeys(("torch", "transformers"))  # type: ignore[arg-type]

import ctranslate2  # noqa: E402

from tprune.bench.compare import rivals  # noqa: E402
from tprune.bench.runner import loop  # noqa: E402

COMPUTE = {"fp32": "float32", "int8": "int8"}


def open_model(asked: argparse.Namespace) -> loop.Opened:
    """Open a folder written by `tprune.rivals.write.write_ctranslate2`."""
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
    # Its defaults would truncate long sources and forbid an empty translation; HuggingFace does neither.
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
    raise SystemExit(loop.main(program="rival-ctranslate2", open_model=open_model))
