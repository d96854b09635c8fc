"""A language model as writer and as judge of sentence pairs (CLAIF, section 3.1)."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from paperflows.components.annotation.judges import Judgement
from paperflows.components.annotation.masking import MASK, mask_sentence
from paperflows.components.llm.client import LLM
from paperflows.components.llm.prompts import render
from paperflows.components.llm.request import Message, Request
from paperflows.components.llm.structured import ask

PROMPTS = Path(__file__).parent / "llm"


class Similarity(BaseModel):
    """The judge's reply."""

    explanation: str = Field(description="one sentence: what the two have in common and what differs")
    score: float = Field(ge=0, le=1, description="similarity of meaning, 0 to 1")


class LLMWriter:
    """Fills masked words into a new sentence; at rate 0 writes a paraphrase.

    Args:
        temperature, top_p: of the sampling (0.7 and 0.9 in the paper).
    """

    def __init__(self, llm: LLM, *, model: str, temperature: float = 0.7, top_p: float = 0.9) -> None:
        self._llm, self._model, self._temperature, self._top_p = llm, model, temperature, top_p

    def write(self, sentences: Sequence[str], rates: Sequence[float], seed: int) -> list[str | None]:
        """As in `PairWriter`; `seed` chooses the masks, the model's own sampling is not seeded but remembered."""
        replies = self._llm.run([self._request(s, r, seed) for s, r in zip(sentences, rates, strict=True)])
        return [_clean(reply.text) if reply.finish_reason == "stop" else None for (reply,) in replies]

    def _request(self, sentence: str, rate: float, seed: int) -> Request:
        masked = mask_sentence(sentence, rate=rate, seed=seed)
        name = "paraphrase.jinja" if rate == 0 else "fill_masks.jinja"
        text, digest = render(PROMPTS / name, sentence=masked, mask=MASK)
        return Request(
            model=self._model,
            messages=(Message(role="user", content=text),),
            temperature=self._temperature,
            top_p=self._top_p,
            max_tokens=128,
            prompt_hash=digest,
            tags={"item": f"{rate}:{sentence}", "stage": "write"},
        )


class LLMJudge:
    """Asks for a similarity in [0, 1] and its explanation, as JSON; the number is never looked for in free text."""

    def __init__(self, llm: LLM, *, model: str) -> None:
        self._llm, self._model = llm, model

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """As in `PairJudge`."""
        replies = ask(self._llm, [self._request(a, b) for a, b in pairs], Similarity)
        return [Judgement(r.score, r.explanation) if r else Judgement(None) for r in replies]

    def _request(self, first: str, second: str) -> Request:
        text, digest = render(PROMPTS / "judge.jinja", first=first, second=second)
        return Request(
            model=self._model,
            messages=(Message(role="user", content=text),),
            temperature=0.0,
            max_tokens=200,
            prompt_hash=digest,
            tags={"stage": "judge"},
        )


def _clean(text: str) -> str | None:
    """The first line that says something, without quotes around it; None when a mask was left in."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'":
        line = line[1:-1].strip()
    return line if line and MASK not in line else None
