"""Any task as reading comprehension: question, options, text; the answer is the span of one of the options.

One head serves all tasks: an option's score is the start logit at its first token plus the end logit at its last (the
logarithm of the product of the two). Options stand in an order drawn anew for each example, so that no place of an
option can stand for a label.

Letters: N examples, B batch, T tokens, C options, D width. Source: MP2 (Sun et al. 2023), section 3.1.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.prompts.encoder import How, Prompt, PromptEncoder
from paperflows.components.training.batching import TokenTable

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Form:
    """The question of a task, and label -> phrase; a label without one stands for itself.

    `blank`: what stands in a text where the right option belongs; empty for tasks without such a place.
    """

    question: str
    options: Mapping[str, str]
    blank: str = ""

    def phrase(self, label: str) -> str:
        """What stands for a label."""
        return self.options.get(label, label)


@cache
def _known() -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((Path(__file__).parent / "questions.yaml").read_text(encoding="utf-8")))


def form_of(dataset: str, own: Mapping[str, Any] | None = None) -> Form:
    """The form of a dataset: the user's own, else that of questions.yaml.

    Raises:
        InputError: there is none, or it has no question.
    """
    known = {**_known(), **(own or {})}
    if dataset not in known:
        raise InputError(
            f"dataset {dataset!r} has no question: give one, such as questions.{dataset}="
            "{question: Is it good or bad ?, options: {positive: good, negative: bad}}"
        )
    found = known[dataset]
    if not isinstance(found, Mapping) or not found.get("question"):
        raise InputError(f"questions.{dataset}: expected the key question")
    options = {str(k): str(v) for k, v in (found.get("options") or {}).items()}
    return Form(str(found["question"]), options, str(found.get("blank") or ""))


@dataclass(frozen=True)
class Reading:
    """N examples: tokens, the first and last token of each option (N, C, 2), which is right (N,), and its phrase.

    Examples with fewer options than others have (0, 0) in their last rows, where no option can stand.
    """

    table: TokenTable
    spans: Tensor
    target: Tensor
    answers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """tokens, mask (B, T), spans (B, C, 2), target (B,) of these rows."""
        tokens, mask = self.table.pad(rows)
        at = torch.from_numpy(rows)
        return {"tokens": tokens, "mask": mask, "spans": self.spans[at], "target": self.target[at]}

    @property
    def majority(self) -> float:
        """Share of the most frequent answer."""
        return max(Counter(self.answers).values()) / len(self)

    @property
    def chance(self) -> float:
        """Mean of 1 / options shown."""
        return float((1 / (self.spans[..., 1] > 0).sum(1)).mean())

    def groups(self, size: int) -> list[dict[str, Any]]:
        """All examples in batches of at most `size`, longest first."""
        order = np.argsort(-self.table.lengths, kind="stable")
        return [self.batch(order[start : start + size]) for start in range(0, len(order), size)]


def read(
    rows: Rows, form: Form, tokenizer: Any, *, labels: Sequence[str], options: int, max_length: int, seed: int
) -> Reading:
    """Rows of classification, or of multiple choice, as reading comprehension.

    Where the text is longer than the room that question and options leave, its end is cut off; of a text with a blank,
    what is nearest to the blank is kept.

    Args:
        labels: all classes of the task; not read for multiple choice.
        options: most of them in one example: the right one and others drawn at random.
        seed: of that draw and of the options' order.

    Raises:
        InputError: question and options leave no room for the text, an option has no token, or a row's label is none
            of the task's.
    """
    random = np.random.default_rng(seed)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id

    def tokens(texts: Sequence[str]) -> list[list[int]]:
        return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    question = tokens([form.question])[0]
    texts, seconds = tokens([r["text"] for r in rows]), tokens([r.get("text_pair") or "" for r in rows])
    before = tokens([_ahead(r["text"], form.blank) for r in rows])
    given = [list(map(str, r["choices"])) if "choices" in r else None for r in rows]
    phrases = sorted({form.phrase(x) for label in given if label for x in label} | {form.phrase(x) for x in labels})
    pieces = dict(zip(phrases, tokens(phrases), strict=True))
    if empty := [phrase for phrase, some in pieces.items() if not some]:
        raise InputError(f"option {empty[0]!r} has no token in this vocabulary")
    made, spans, target, answers = [], [], [], []
    for row, text, ahead, second, choices in zip(rows, texts, before, seconds, given, strict=True):
        right = choices[row["answer"]] if choices else str(row["label"])
        if not choices and right not in labels:
            raise InputError(f"label {right!r} is none of {', '.join(labels[:20])}")
        others = [x for x in dict.fromkeys(choices or labels) if x != right]
        drawn = random.permutation(len(others))[: options - 1]
        shown = [right, *(others[i] for i in drawn)]
        order = random.permutation(len(shown))
        ids, places = [first, *question, last], np.zeros((len(shown), 2), dtype=np.int64)
        for at in order:
            piece = pieces[form.phrase(shown[at])]
            places[at] = len(ids), len(ids) + len(piece) - 1
            ids += [*piece, last]
        room = max_length - len(ids) - (2 if second else 1)
        if room < 1:
            raise InputError(f"max_length {max_length} leaves no room for a text after {form.question!r}")
        second = second[: max(room // 2, room - len(text))]
        kept = room - len(second)
        start = max(0, min(len(ahead) - kept // 2, len(text) - kept))
        ids += [*text[start : start + kept], last, *([*second, last] if second else [])]
        made.append(ids)
        # the right option's row is shuffled too: a target that is always 0 would hide an error in the spans
        shuffled = random.permutation(len(shown))
        spans.append(places[shuffled])
        target.append(int(np.flatnonzero(shuffled == 0)[0]))
        answers.append(form.phrase(right))
    table = TokenTable(made, pad_id=tokenizer.pad_token_id)
    padded = nn.utils.rnn.pad_sequence([torch.from_numpy(s) for s in spans], True)
    return Reading(table, padded, torch.tensor(target), tuple(answers))


def _ahead(text: str, blank: str) -> str:
    """What stands before the blank; nothing where there is none."""
    return text.partition(blank)[0] if blank and blank in text else ""


class SpanHead(nn.Linear):
    """Start and end logits of every token, and from them the scores of options.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 2)

    def forward(self, states: Tensor, mask: Tensor, spans: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, D) states and (B, C, 2) spans -> scores of the options (B, C), -inf where there is none."""
        start, end = super().forward(states).unbind(-1)
        first, last = spans.unbind(-1)
        return (start.gather(1, first) + end.gather(1, last)).masked_fill(last == 0, -torch.inf)


class Reader(nn.Module):
    """An encoder with one span head for every task.

    Args:
        encoder: BERT-like.
        how: what a prompt does where an earlier one stands.
    """

    def __init__(self, encoder: nn.Module, *, how: How = "add") -> None:
        super().__init__()
        self.encoder, self.how = PromptEncoder(encoder), how
        self.span = SpanHead(self.encoder.width)

    def forward(self, batch: Mapping[str, Any], prompts: Mapping[int, Prompt] | None = None) -> Tensor:
        """tokens, mask (B, T) and spans (B, C, 2) -> scores of the options (B, C), -inf where there is none."""
        stream = self.encoder.start(batch["tokens"], batch["mask"])
        last = self.encoder.advance(stream, prompts, how=self.how)
        return self.span(last.text, last.text_mask, batch["spans"])
