"""n-gram metrics of one candidate against one reference, by the libraries that the field uses."""

from collections.abc import Callable, Sequence

from paperflows.components.errors import InputError

Pairs = Sequence[tuple[str, str]]
Score = Callable[[str, str], float]


def ngram_scores(metric: str, pairs: Pairs) -> list[float]:
    """Score in [0, 1] (NIST: >= 0, in bits) of each (candidate, reference).

    Args:
        metric: one of `NGRAM_METRICS`.

    Raises:
        InputError: another metric.
    """
    if metric not in NGRAM_METRICS:
        raise InputError(f"n-gram metric {metric!r}: expected one of {', '.join(sorted(NGRAM_METRICS))}")
    score = NGRAM_METRICS[metric]()
    return [score(candidate, reference) for candidate, reference in pairs]


def _bleu(tokenize: str) -> Score:
    from sacrebleu.metrics import BLEU

    bleu = BLEU(effective_order=True, tokenize=tokenize)
    return lambda candidate, reference: bleu.sentence_score(candidate, [reference]).score / 100


def _chrf() -> Score:
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    return lambda candidate, reference: chrf.sentence_score(candidate, [reference]).score / 100


def _rouge() -> Score:
    from rouge_score.rouge_scorer import RougeScorer

    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    return lambda candidate, reference: float(rouge.score(reference, candidate)["rougeL"].fmeasure)


def _nist() -> Score:
    from nltk.translate.nist_score import sentence_nist

    def score(candidate: str, reference: str) -> float:
        hypothesis = candidate.split()
        return float(sentence_nist([reference.split()], hypothesis, n=min(5, len(hypothesis))))

    return score


class _NoSynonyms:
    """Stands where METEOR looks for WordNet, whose database is not part of the library."""

    def synsets(self, word: str) -> list[str]:
        """None for any word."""
        return []


def _meteor() -> Score:
    from nltk.translate.meteor_score import single_meteor_score

    nothing = _NoSynonyms()
    return lambda candidate, reference: float(
        single_meteor_score(reference.split(), candidate.split(), wordnet=nothing)
    )


NGRAM_METRICS: dict[str, Callable[[], Score]] = {
    "bleu": lambda: _bleu("13a"),
    "bleu-whitespace": lambda: _bleu("none"),
    "chrf": _chrf,
    "rouge": _rouge,
    "nist": _nist,
    "meteor": _meteor,
}
"""BLEU-4 by sacrebleu (13a tokens, or split at spaces), chrF2 by sacrebleu, ROUGE-L F1 with stemming by rouge-score,
NIST-5 and METEOR (exact and stemmed matches, without WordNet's synonyms) by nltk."""
