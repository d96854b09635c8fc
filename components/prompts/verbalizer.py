"""Templates with a mask token, and label words read there; or plain texts, and label sentences they are near to.

Letters: N texts, B batch, T tokens, C classes, D width, V vocabulary.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.prompts.encoder import PromptEncoder
from paperflows.components.training.batching import TokenTable

Rows = Sequence[Mapping[str, Any]]
_PLACE = re.compile(r"\{(text|text_pair|mask)\}")


@dataclass(frozen=True)
class Template:
    """How a task is put to a masked language model.

    Args:
        pattern: words with {mask} once, {text}, and {text_pair} for pairs.
        words: label -> the word that stands for it; the order is that of the classes.
        sentences: label -> a sentence that stands for it, in the same order.
    """

    pattern: str
    words: Mapping[str, str]
    sentences: Mapping[str, str]

    @property
    def labels(self) -> list[str]:
        """The classes, in order."""
        return list(self.words)

    def plain(self, *, pair: bool) -> "Template":
        """The same labels with the texts alone, for a head that reads no mask token."""
        return Template("{text} ? {text_pair}" if pair else "{text}", self.words, self.sentences)


@cache
def _known() -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((Path(__file__).parent / "templates.yaml").read_text(encoding="utf-8")))


def template_of(dataset: str, own: Mapping[str, Any] | None = None) -> Template:
    """The template of a dataset: the user's own, else that of templates.yaml.

    Raises:
        InputError: there is none, or it lacks the mask, the text or the words, or its sentences are of other labels.
    """
    known = {**_known(), **(own or {})}
    if dataset not in known:
        raise InputError(
            f"dataset {dataset!r} has no template: give one, such as templates.{dataset}="
            '{pattern: "{text} It was {mask} .", words: {positive: great, negative: bad}}'
        )
    found = known[dataset]
    if not isinstance(found, Mapping) or not {"pattern", "words"} <= found.keys():
        raise InputError(f"templates.{dataset}: expected the keys pattern and words")
    places = _PLACE.findall(found["pattern"])
    if places.count("mask") != 1 or places.count("text") != 1:
        raise InputError(f"templates.{dataset}.pattern: expected {{text}} and {{mask}} once each")
    words = {str(label): str(word) for label, word in found["words"].items()}
    sentences = {str(label): str(said) for label, said in found.get("sentences", words).items()}
    if sentences.keys() != words.keys():
        raise InputError(f"templates.{dataset}: words and sentences name different labels")
    return Template(found["pattern"], words, {label: sentences[label] for label in words})


def word_ids(template: Template, tokenizer: Any) -> Tensor:
    """(C,) token ids of the label words.

    Raises:
        InputError: a word is not one token of this vocabulary, or two labels share one.
    """
    ids = []
    for label, word in template.words.items():
        pieces = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
            raise InputError(f"label word {word!r} of {label!r} is {len(pieces)} pieces of this vocabulary")
        ids.append(pieces[0])
    if len(set(ids)) < len(ids):
        raise InputError(f"two labels have the same word: {', '.join(template.words.values())}")
    return torch.tensor(ids)


@dataclass(frozen=True)
class Prompted:
    """N texts in their template: tokens, the place of each mask token (0 without one), targets (N,) int64."""

    table: TokenTable
    places: np.ndarray
    target: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, rows: np.ndarray) -> dict[str, Any]:
        """tokens, mask (B, T), place and target (B,) of these rows."""
        tokens, mask = self.table.pad(rows)
        place = torch.from_numpy(self.places[rows])
        return {"tokens": tokens, "mask": mask, "place": place, "target": self.target[torch.from_numpy(rows)]}

    def groups(self, size: int) -> list[dict[str, Any]]:
        """All texts in batches of at most `size`, longest first."""
        order = np.argsort(-self.table.lengths, kind="stable")
        return [self.batch(order[start : start + size]) for start in range(0, len(order), size)]


def wrap(rows: Rows, template: Template, tokenizer: Any, *, max_length: int) -> Prompted:
    """Rows in their template. Long texts are cut, never the template: the mask token always stays.

    Raises:
        InputError: a label without a word, or a template too long for `max_length`.
    """
    number = {label: i for i, label in enumerate(template.labels)}
    unknown = {str(row["label"]) for row in rows} - number.keys()
    if unknown:
        raise InputError(f"label {min(unknown)!r} has no word; the template knows {', '.join(template.labels)}")
    fixed = _PLACE.split(template.pattern)  # words, place, words, place, ..., words
    encoded: dict[str, Any] = {}
    # a space belongs to the word after it, also where that word is in a text: vocabularies of bytes tell them apart
    for before, field in zip(fixed[::2], fixed[1::2], strict=False):
        if field != "mask":
            space = " " if before.endswith(" ") else ""
            texts = [space + str(row[field]) for row in rows]
            encoded[field] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    between = [
        tokenizer(part.rstrip(), add_special_tokens=False)["input_ids"] if part.strip() else [] for part in fixed[::2]
    ]
    first, last = _ends(tokenizer)
    masks = fixed[1::2].count("mask")
    room = max_length - len(first) - len(last) - masks - sum(map(len, between))
    if room < len(encoded):
        raise InputError(f"max_length {max_length} is too short for the template {template.pattern!r}")
    made: list[list[int]] = []
    places = np.zeros(len(rows), dtype=np.int64)
    for i in range(len(rows)):
        parts = _cut({name: texts[i] for name, texts in encoded.items()}, room)
        row = list(first)
        for words, name in zip(between, [*fixed[1::2], None], strict=True):
            row += words
            if name == "mask":
                places[i] = len(row)
                row.append(tokenizer.mask_token_id)
            elif name:
                row += parts[name]
        made.append(row + last)
    target = torch.tensor([number[str(row["label"])] for row in rows])
    return Prompted(TokenTable(made, pad_id=tokenizer.pad_token_id), places, target)


def _ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Special tokens before and after a text."""
    ids = tokenizer("")["input_ids"]
    return ids[: len(ids) // 2], ids[len(ids) // 2 :]


def _cut(parts: dict[str, list[int]], room: int) -> dict[str, list[int]]:
    """Token lists shortened to `room` in all, the longer one first."""
    if len(parts) == 1:
        return {name: tokens[:room] for name, tokens in parts.items()}
    (a, x), (b, y) = parts.items()
    keep_x = max(min(len(x), room // 2), room - len(y))
    x = x[:keep_x]
    return {a: x, b: y[: room - len(x)]}


class WordHead(nn.Module):
    """The masked-LM head for the label words alone: (B, T, D) states, read at the mask token -> (B, C) logits.

    Args:
        masked_lm: a Hugging Face masked language model of the BERT or RoBERTa family.
        words: (C,) token ids.

    Raises:
        InputError: the model keeps its head elsewhere.
    """

    def __init__(self, masked_lm: nn.Module, words: Tensor) -> None:
        super().__init__()
        whole: Any = masked_lm
        found = getattr(whole, "cls", None) or getattr(whole, "lm_head", None)
        inner = getattr(found, "predictions", found)
        if inner is None or not isinstance(getattr(inner, "decoder", None), nn.Linear):
            raise InputError(f"{type(masked_lm).__name__}: its masked-LM head is in none of the known places")
        old = inner.decoder
        decoder, bias = inner.decoder, inner.bias
        few = nn.Linear(old.in_features, len(words))
        with torch.no_grad():
            few.weight.copy_(old.weight[words])
            few.bias.copy_((old.bias if old.bias is not None else bias)[words])
        inner.decoder, inner.bias = None, None  # the vocabulary is not copied
        self.head: Any = copy.deepcopy(inner)
        inner.decoder, inner.bias = decoder, bias
        self.head.decoder = few

    def forward(self, states: Tensor, mask: Tensor, place: Tensor) -> Tensor:
        """Logits of the label words; place (B,) is that of the mask token."""
        return self.head(states[torch.arange(len(states), device=states.device), place])


class LabelHead(nn.Module):
    """Cosines of a text's mean state and its labels' sentences, times `scale`: (B, T, D) states -> (B, C) logits.

    For encoders of sentences, whose states tell what a text is about better than which word is missing.

    Args:
        vectors: (C, D) mean states of the labels' sentences.
        scale: 20 is what such encoders are trained with.
    """

    def __init__(self, vectors: Tensor, *, scale: float = 20.0) -> None:
        super().__init__()
        self.vectors, self.scale = nn.Parameter(vectors.detach().clone()), scale

    def forward(self, states: Tensor, mask: Tensor, place: Tensor) -> Tensor:
        """Logits of the labels; the mask token's place is not read."""
        return self.scale * F.normalize(mean_state(states, mask), dim=-1) @ F.normalize(self.vectors, dim=-1).T


@torch.no_grad()
def sentence_means(encoder: PromptEncoder, tokenizer: Any, sentences: Sequence[str]) -> Tensor:
    """(C, D) mean last states of some sentences, without a prompt."""
    ids, mask = TokenTable.from_texts(list(sentences), tokenizer, max_length=64).pad(np.arange(len(sentences)))
    return mean_state(encoder.eval()(ids, mask), mask)


def mean_state(states: Tensor, mask: Tensor) -> Tensor:
    """(B, T, D) states and (B, T) mask -> (B, D) mean over the tokens that are not padding."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)
