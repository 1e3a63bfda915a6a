"""`Tokens`: text to Marian token ids like MarianTokenizer, with sentencepiece alone.

`tokens = read(folder); tokens.encode("A man sleeps.")`. The ids of source.spm are not Marian's: vocab.json maps pieces
to ids, and unknown pieces to <unk>. One intended difference: "</s>", "<unk>" and "<pad>" in a sentence are plain text
here, not special tokens.
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
        """Return the ids of one sentence with the final </s>; a leading >>xyz<< selects the target language."""
        code: list[str] = []
        if text.startswith(">>") and (end := text.find("<<")) != -1:
            code, text = [text[: end + 2]], text[end + 2 :]
        pieces: list[str] = self.pieces.encode(text.strip(), out_type=str)
        return [self.vocabulary.get(piece, self.unk) for piece in code + pieces] + [self.eos]


def read(folder: Path | str) -> Tokens:
    """Read the tokenizer of an artefact or model folder (source.spm, vocab.json). BadInput names missing files."""
    import sentencepiece  # noqa: PLC0415 - slow to import

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
