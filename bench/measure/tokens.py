"""`Tokens`: text to Marian token ids with sentencepiece alone, as MarianTokenizer does it, without transformers.

`tokens = read(folder); tokens.encode("A man sleeps.")`. The ids of source.spm are not Marian's: pieces go through
vocab.json, and what it does not know becomes <unk>. One difference is meant: "</s>", "<unk>" and "<pad>" written out
in a sentence are text here, not special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprune.base.errors import BadInput


@dataclass(frozen=True)
class Tokens:
    """The source side of a Marian tokenizer."""

    pieces: Any  # sentencepiece.SentencePieceProcessor
    vocabulary: Mapping[str, int]
    unk: int
    eos: int

    def encode(self, text: str) -> list[int]:
        """Return the ids of one sentence, the final </s> included; a leading >>xyz<< is the target language."""
        code: list[str] = []
        if text.startswith(">>") and (end := text.find("<<")) != -1:
            code, text = [text[: end + 2]], text[end + 2 :]
        found: list[str] = self.pieces.encode(text.strip(), out_type=str)
        return [self.vocabulary.get(piece, self.unk) for piece in code + found] + [self.eos]


def read(folder: Path | str) -> Tokens:
    """Return the tokenizer of an artefact or model folder (source.spm, vocab.json); BadInput names what is missing."""
    import sentencepiece  # noqa: PLC0415 - only who tokenises pays for it

    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r} is not an artefact: there is no such folder; make one with `tprune export`")
    if missing := [name for name in ("source.spm", "vocab.json") if not (folder / name).is_file()]:
        raise BadInput(f"{str(folder)!r} has no {' and no '.join(missing)}, which its tokenizer needs")
    try:
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
        return Tokens(pieces=pieces, vocabulary=vocabulary, unk=vocabulary["<unk>"], eos=vocabulary["</s>"])
    except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
        raise BadInput(f"the tokenizer of {str(folder)!r} cannot be read: {error}") from None
