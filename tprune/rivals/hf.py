"""HuggingFace transformers behind the runner's contract: `python -m tprune.rivals.hf seq2seq ...`.

Eager PyTorch, one `generate` per sentence, inference mode, `<pad>` forbidden as in published Marian models. Only the
call of `generate` is timed.
"""

from __future__ import annotations

import argparse
import time

import torch
from transformers import AutoModelForSeq2SeqLM

import tprune  # noqa: F401 - registers pruned checkpoints with transformers
from tprune.bench.compare import rivals
from tprune.bench.runner import loop
from tprune.marian.translate import generation_settings


def open_model(asked: argparse.Namespace) -> loop.Opened:
    """Open a folder written by `tprune.rivals.write.write_hf`."""
    torch.set_num_threads(asked.threads)
    rival = rivals.read(asked.artefact)
    model = AutoModelForSeq2SeqLM.from_pretrained(asked.artefact, dtype=torch.float32).eval()

    def translate(ids: list[int], limit: int) -> loop.Translated:
        settings = generation_settings(model, beams=asked.beams, max_length=limit)
        source = torch.tensor([ids])
        mask = torch.ones_like(source)
        with torch.inference_mode():
            begin = time.perf_counter_ns()
            found = model.generate(input_ids=source, attention_mask=mask, generation_config=settings)
            took = time.perf_counter_ns() - begin
        output = found[0, 1:].tolist()
        return loop.Translated(output, took, 0, took, took, len(output))

    return loop.Opened(rival.id, rival.max_target, "transformers", translate)


if __name__ == "__main__":
    raise SystemExit(loop.main(program="rival-hf", open_model=open_model))
