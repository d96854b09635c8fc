"""A natural language inference model as the judge of citations: do the cited passages entail the statement?

Letters: N pairs.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
from paperflows.components.retrieval.citations import Statement, Supported, judgements_of


class EntailmentJudge:
    """Any sequence classifier one of whose labels is called entailment, by folder or Hugging Face id.

    Args:
        device: "auto", "cpu" or "cuda".
        max_length: tokens kept of a pair; the longer side is cut.

    Raises:
        InputError: no label, or more than one, is called entailment.
    """

    def __init__(self, model: str, *, device: str = "auto", max_length: int = 512) -> None:
        from transformers import AutoModelForSequenceClassification

        loaded = load_pretrained(AutoModelForSequenceClassification, model).eval()
        labels = loaded.config.id2label
        found = [number for number, label in labels.items() if label.lower().startswith("entail")]
        if len(found) != 1:
            raise InputError(f"model {model!r} judges no entailment: its labels are {', '.join(labels.values())}")
        self._entails = int(found[0])
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self._device = torch.device("cuda" if cuda else "cpu")
        self._model = loaded.to(self._device)
        self._tokenizer, self._max_length = load_tokenizer(model), max_length

    @torch.inference_mode()
    def entails(self, premises: Sequence[str], hypotheses: Sequence[str], *, batch_size: int = 32) -> NDArray[np.bool_]:
        """(N,) whether entailment is the likeliest label of each pair."""
        out = np.zeros(len(premises), bool)
        order = np.argsort([-len(a) - len(b) for a, b in zip(premises, hypotheses, strict=True)], kind="stable")
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            inputs = self._tokenizer(
                [premises[i] for i in some], [hypotheses[i] for i in some], padding=True, truncation=True,
                max_length=self._max_length, return_tensors="pt",
            ).to(self._device)  # fmt: skip
            out[some] = (self._model(**inputs).logits.argmax(-1) == self._entails).cpu().numpy()
        return out


def entailed_support(
    answers: Iterable[Sequence[Statement]], passages: Callable[[int], str], judge: EntailmentJudge
) -> Supported:
    """The verdicts that ALCE's measures ask for on these answers, all judged at once; no citation supports nothing.

    Args:
        answers: each a list of statements.
        passages: number -> text as it is shown; cited ones are read one below the other.
    """
    pairs = list(dict.fromkeys(pair for statements in answers for pair in judgements_of(statements)))
    premises = ["\n".join(map(passages, cited)) for _, cited in pairs]
    verdicts = dict(zip(pairs, judge.entails(premises, [text for text, _ in pairs]).tolist(), strict=True))
    return lambda text, cited: bool(cited) and verdicts[text, tuple(cited)]
