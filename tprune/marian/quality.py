"""Quality with its recipe: BLEU and chrF with sacreBLEU's signatures, and a paired bootstrap against a baseline.

The quality document keeps every hypothesis, so that a later model can be compared with this one without running it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from tprune.base.errors import BadInput
from tprune.base.stamp import SCHEMA, stamp
from tprune.marian.corpus import Corpus
from tprune.marian.count import count
from tprune.marian.translate import decode, translate

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint

SAMPLES = 1000  # sacreBLEU's own defaults for `--paired-bs`, so that its command line gives the same p-value
SEED = 12345


@dataclass(frozen=True)
class Score:
    """BLEU and chrF2 of a corpus in percent, each with the signature that makes the number comparable."""

    bleu: float
    chrf: float
    signature: str
    chrf_signature: str


@dataclass(frozen=True)
class System:
    """What produced translations: the model's facts, the artefact's id (None without one), runtime and precision."""

    model: dict[str, Any]
    artefact: str | None = None
    runtime: str = "torch"
    precision: str = "fp32"


def score(hypotheses: Sequence[str], references: Sequence[str], *, language: str | None = None) -> Score:
    """Return BLEU and chrF of `hypotheses`, one a reference.

    `language` is the target's code: sacreBLEU has own tokenisers for zh, ja and ko and takes 13a for all others.
    Raises BadInput when the lengths differ or there is nothing to score.
    """
    _check_lengths(hypotheses, references)
    bleu, chrf = _bleu(language), CHRF()
    bleu_score = bleu.corpus_score(list(hypotheses), [list(references)]).score
    chrf_score = chrf.corpus_score(list(hypotheses), [list(references)]).score
    return Score(bleu_score, chrf_score, bleu.get_signature().format(), chrf.get_signature().format())


def compare(
    hypotheses: Sequence[str],
    baseline_hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    language: str | None = None,
) -> float:
    """Return the p-value of the BLEU difference of two systems: sacreBLEU's paired bootstrap with `samples` resamples.

    A difference of exactly zero has p = 1; sacreBLEU alone would report its smallest p for a system against itself.
    Raises BadInput for lists of different length, `samples` < 1 or `seed` < 1 (sacreBLEU takes 0 for "no seed").
    """
    _check_lengths(hypotheses, references)
    _check_lengths(baseline_hypotheses, references)
    if samples < 1 or seed < 1:
        raise BadInput(f"samples {samples} and seed {seed} must both be at least 1")
    systems = [("baseline", list(baseline_hypotheses)), ("system", list(hypotheses))]
    with _sacrebleu_seed(seed):
        test = PairedTest(
            systems, {"BLEU": _bleu(language)}, [list(references)], test_type="bs", n_samples=samples, n_jobs=1
        )
        _, table = test()
    baseline, system = table["BLEU"]
    return 1.0 if system.score == baseline.score else float(system.p_value)


def evaluate(
    checkpoint: Checkpoint,
    corpus: Corpus,
    *,
    beams: int = 1,
    baseline: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Translate the corpus with a checkpoint and return the quality document; `baseline` is another one's file."""
    against = None if baseline is None else read_quality(baseline, corpus)
    made = translate(checkpoint.model, checkpoint.tokenizer, corpus.source, beams=beams, progress=progress)
    precision = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(
        str(checkpoint.model.dtype).removeprefix("torch."), str(checkpoint.model.dtype)
    )
    system = System(model_facts(checkpoint), precision=precision)
    return {**_document(made.text, corpus, system, beams, against), "truncated": made.truncated}


def evaluate_ids(
    ids: Sequence[Sequence[int]],
    tokenizer: Any,
    corpus: Corpus,
    *,
    system: System,
    beams: int = 1,
    baseline: Path | None = None,
    whole: Corpus | None = None,
) -> dict[str, Any]:
    """Return the quality document of target token ids that an artefact or a device produced, one list a sentence.

    `whole` is what `corpus` is the beginning of: a `baseline` of more of its sentences is then compared on the shared
    ones.
    """
    against = None if baseline is None else read_quality(baseline, corpus, whole)
    return _document(decode(tokenizer, ids), corpus, system, beams, against)


def model_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the block `model` of a quality document: id, name, criterion, seed, keep, params, macs."""
    facts, size = checkpoint.facts, count(checkpoint.model)
    return {
        "id": checkpoint.id,
        "name": checkpoint.name,
        "criterion": facts.get("criterion", "dense"),
        "seed": facts.get("seed"),
        "keep": facts.get("keep", 1.0),
        "params": size.params,
        "macs": size.macs,
    }


def read_quality(path: Path, corpus: Corpus, whole: Corpus | None = None) -> dict[str, Any]:
    """Return a quality document that was made on `corpus`, or on a longer beginning of `whole`; that one is cut.

    Raises BadInput when the file is none, or was made on other sentences.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"baseline {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadInput(f"baseline {str(path)!r} is not JSON; name what `tprune evaluate --out` wrote") from None
    if not isinstance(document, dict) or document.get("kind") != "quality" or document.get("schema") != SCHEMA:
        raise BadInput(f"baseline {str(path)!r} is no quality document of schema {SCHEMA} (tprune evaluate --out)")
    missing = [key for key in ("corpus", "sentences", "hypotheses", "model") if key not in document]
    if missing:
        raise BadInput(f"baseline {str(path)!r} lacks {', '.join(missing)}; evaluate the baseline again")
    there, here = (document["corpus"], document["sentences"]), (corpus.id, len(corpus))
    if whole is not None and isinstance(there[1], int) and here[1] < there[1]:
        if _is_beginning(whole, *here) and _is_beginning(whole, *there):
            return {**document, "hypotheses": document["hypotheses"][: here[1]]}
    if there != here:
        raise BadInput(
            f"baseline {str(path)!r} was made on corpus {there[0]} with {there[1]} sentences, but this one is "
            f"{here[0]} with {here[1]}; evaluate both on the same data, split and limit"
        )
    return document


def _is_beginning(whole: Corpus, identity: str, sentences: int) -> bool:
    cut = replace(whole, source=whole.source[:sentences], target=whole.target[:sentences])
    return (cut.id, len(cut)) == (identity, sentences)


def _document(
    hypotheses: Sequence[str], corpus: Corpus, system: System, beams: int, against: dict[str, Any] | None
) -> dict[str, Any]:
    result = score(hypotheses, corpus.target, language=corpus.language)
    inputs = {"model": str(system.model["id"]), "corpus": corpus.id}
    return {
        **stamp("quality", inputs),
        "model": system.model,
        "artefact": system.artefact,
        "runtime": system.runtime,
        "precision": system.precision,
        "split": corpus.split,
        "limit": corpus.limit,
        "beams": beams,
        "bleu": result.bleu,
        "chrf": result.chrf,
        "signature": result.signature,
        "chrf_signature": result.chrf_signature,
        "baseline": None if against is None else _versus(hypotheses, corpus, against),
        "sentences": len(corpus),
        "corpus": corpus.id,
        "hypotheses": list(hypotheses),
    }


def _versus(hypotheses: Sequence[str], corpus: Corpus, against: dict[str, Any]) -> dict[str, Any]:
    """Score the baseline's kept hypotheses anew, so that both numbers come from one version of sacreBLEU."""
    kept = against["hypotheses"]
    return {
        "name": against["model"]["name"],
        "beams": against.get("beams", 1),
        "bleu": score(kept, corpus.target, language=corpus.language).bleu,
        "p_value": compare(hypotheses, kept, corpus.target, language=corpus.language),
    }


def _bleu(language: str | None) -> BLEU:
    # force: no warning about hypotheses that look tokenised; a caption corpus in lower case would raise it every time
    try:
        return BLEU(trg_lang=language or "", force=True)
    except (ImportError, RuntimeError) as error:  # sacreBLEU's Japanese and Korean tokenisers are extras of it
        raise BadInput(f"target language {language!r} needs a tokeniser that is not installed: {error}") from error


def _check_lengths(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references) or not references:
        raise BadInput(f"{len(hypotheses)} hypotheses but {len(references)} references; there must be one each")


@contextlib.contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """Set the environment variable that is sacreBLEU's only way in for a seed; what was there comes back."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before
