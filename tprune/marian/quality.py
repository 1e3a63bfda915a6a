"""Translation quality: BLEU and chrF with sacreBLEU's signatures, and a paired bootstrap against a baseline.

The quality document keeps every hypothesis, so that a later model can be compared with this one without running it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from tprune.base import html
from tprune.base.errors import BadInput
from tprune.base.significance import p_cell, p_text
from tprune.base.stamp import SCHEMA, stamp, write_json
from tprune.marian.corpus import Corpus
from tprune.marian.count import count
from tprune.marian.translate import decode, translate

if TYPE_CHECKING:
    from tprune.marian.checkpoint import Checkpoint

SAMPLES = 1000  # sacreBLEU's defaults for `--paired-bs`: its command line gives the same p-value
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
    """The producer of translations: model facts, artefact id (None for a checkpoint), runtime and precision."""

    model: dict[str, Any]
    artefact: str | None = None
    runtime: str = "torch"
    precision: str = "fp32"


@dataclass(frozen=True, repr=False)
class Quality:
    """The quality of a model on a corpus; `document` is the content of quality.json."""

    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self.document["model"]["name"])

    @property
    def bleu(self) -> float:
        """BLEU in per cent."""
        return float(self.document["bleu"])

    @property
    def chrf(self) -> float:
        """chrF2 in per cent."""
        return float(self.document["chrf"])

    @property
    def p_value(self) -> float | None:
        """The p-value of the BLEU difference from the baseline (paired bootstrap); None without a baseline."""
        versus = self.document["baseline"]
        return None if versus is None else float(versus["p_value"])

    def __repr__(self) -> str:
        found = self.document
        where = f"{found['sentences']:,} sentences of {found['split']}"
        versus = "" if self.p_value is None else f"; {found['baseline']['name']} {found['baseline']['bleu']:.2f}"
        p_value = "" if self.p_value is None else f", {p_text(self.p_value)}"
        return f"Quality({self.name!r}: BLEU {self.bleu:.2f}, chrF {self.chrf:.2f} on {where}{versus}{p_value})"

    def _repr_html_(self) -> str:
        found, versus = self.document, self.document["baseline"]
        rows = [
            (self.name, f"{self.bleu:.2f}", f"{self.chrf:.2f}", "" if self.p_value is None else p_cell(self.p_value))
        ]
        if versus is not None:
            rows.append((versus["name"], f"{versus['bleu']:.2f}", "", ""))
        return html.table(f"{found['sentences']:,} sentences of {found['split']}", ("model", "BLEU", "chrF", "p"), rows)

    def write(self, path: Path | str) -> None:
        """Write quality.json, whole or not at all."""
        write_json(path, self.document)


Baseline = Quality | str | Path
"""A quality, or the file that `Quality.write` or `tprune evaluate --out` wrote."""


def score(hypotheses: Sequence[str], references: Sequence[str], *, language: str | None = None) -> Score:
    """Return BLEU and chrF of `hypotheses`, one per reference.

    `language` is the code of the target: sacreBLEU has its own tokenisers for zh, ja and ko and uses 13a for all
    others. Raises BadInput when the lengths differ or there is nothing to score.
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
    baseline: Baseline | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Translate the corpus with a checkpoint and return the quality document; `baseline` is another model's quality."""
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
    baseline: Baseline | None = None,
    whole: Corpus | None = None,
) -> dict[str, Any]:
    """Return the quality document of target ids from an artefact or a device, one list per sentence.

    `corpus` may be the beginning of `whole`: a `baseline` on more sentences of it is compared on the shared ones.
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


def read_quality(path: Baseline, corpus: Corpus, whole: Corpus | None = None) -> dict[str, Any]:
    """Return the quality document of a baseline on `corpus`; one on a longer beginning of `whole` is shortened.

    Raises BadInput if the file is not a quality document, or was made on other sentences.
    """
    if isinstance(path, Quality):
        return _on_same_sentences(repr(path.name), dict(path.document), corpus, whole)
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
    return _on_same_sentences(repr(str(path)), document, corpus, whole)


def _on_same_sentences(name: str, document: dict[str, Any], corpus: Corpus, whole: Corpus | None) -> dict[str, Any]:
    there, here = (document["corpus"], document["sentences"]), (corpus.id, len(corpus))
    if whole is not None and isinstance(there[1], int) and here[1] < there[1]:
        if _is_beginning(whole, *here) and _is_beginning(whole, *there):
            return {**document, "hypotheses": document["hypotheses"][: here[1]]}
    if there != here:
        raise BadInput(
            f"baseline {name} was made on split {document.get('split')} with {there[1]} sentences (id {there[0]}), but "
            f"this is split {corpus.split} with {here[1]} (id {here[0]}); "
            "evaluate both on the same data, split and limit"
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
    """Score the hypotheses of the baseline again, so that both numbers come from one version of sacreBLEU."""
    kept = against["hypotheses"]
    return {
        "name": against["model"]["name"],
        "beams": against.get("beams", 1),
        "bleu": score(kept, corpus.target, language=corpus.language).bleu,
        "p_value": compare(hypotheses, kept, corpus.target, language=corpus.language),
    }


def _bleu(language: str | None) -> BLEU:
    # force: no warning about hypotheses that look tokenised, which lower-case captions always do
    try:
        return BLEU(trg_lang=language or "", force=True)
    except (ImportError, RuntimeError) as error:  # its Japanese and Korean tokenisers are optional
        raise BadInput(f"target language {language!r} needs a tokeniser that is not installed: {error}") from error


def _check_lengths(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references) or not references:
        raise BadInput(f"{len(hypotheses)} hypotheses but {len(references)} references; there must be one each")


@contextlib.contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """Set the environment variable that sacreBLEU takes its seed from; restore it afterwards."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before
