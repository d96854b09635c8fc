"""Training pairs for a scorer of support: parts of questions with passages that belong to them or only look like it."""

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any

from paperflows.components.retrieval.names import TitleLinks
from paperflows.components.retrieval.support import part_of

UNKNOWN = -1  # of a label that the data does not give; no loss
Pair = tuple[str, int, int, int, int]  # part, passage, and the labels of `support.OUTPUTS`


def parts_of(question: Mapping[str, Any], passages: Sequence[Mapping[str, Any]], links: TitleLinks) -> dict[str, int]:
    """Part -> the passage that answers it, for a question whose links name what its answers are about.

    A name belongs to the passage with this title, or to the first that holds it.
    """
    inside = set(links.named_in(question["text"]))
    linking = [place for group in question["links"] for place in group]
    names = dict.fromkeys(name for place in linking for name in links.named_in(passages[place]["text"]))
    holders = [place for some in question["holders"] for place in some]
    found = {}
    for name in names:
        if name not in inside:
            about = [p for p in holders if passages[p]["title"].removeprefix("the ") == name]
            about += [p for p in holders if name in links.named_in(passages[p]["text"])]
            if about:
                found[part_of(question["text"], name)] = about[0]
    return found


def build_pairs(
    questions: Sequence[Mapping[str, Any]],
    passages: Sequence[Mapping[str, Any]],
    nearest: Mapping[str, Sequence[int]],
    forbidden: Collection[int],
    links: TitleLinks,
    *,
    negatives: int,
    seed: int,
) -> list[Pair]:
    """Pairs of training questions, none of which holds a forbidden passage.

    Args:
        questions: rows with text, holders (one list of passages for each answer) and links (lists as well).
        nearest: part -> passages that a retriever finds for it; wrong ones are drawn from these.
        forbidden: passages that support an evaluated question.
        negatives: wrong passages of a part.
    """
    rng = Random(seed)
    pairs: list[Pair] = []
    for question in questions:
        text = question["text"]
        holders = {place for some in question["holders"] for place in some}
        linking = {place for group in question["links"] for place in group}
        right: dict[str, dict[int, tuple[int, int, int]]] = {text: {}}
        if linking:
            # a passage that answers a linked question helps it, and is neither right nor wrong without the link
            right[text] = dict.fromkeys(sorted(holders), (UNKNOWN, UNKNOWN, 1)) | dict.fromkeys(
                sorted(linking), (1, 0, 1)
            )
            for part, place in parts_of(question, passages, links).items():
                right[part] = {**dict.fromkeys(sorted(linking), (0, 0, UNKNOWN)), place: (1, 1, UNKNOWN)}
        else:
            right[text] = dict.fromkeys(sorted(holders), (1, 1, 1))
        for part, good in right.items():
            pairs += [(part, place, *labels) for place, labels in good.items()]
            known = set(good) | linking
            wrong = [place for place in nearest.get(part, ()) if place not in known and place not in forbidden]
            unhelpful = 0 if part == text else UNKNOWN
            pairs += [(part, place, 0, 0, unhelpful) for place in rng.sample(wrong, min(negatives, len(wrong)))]
    pairs = [pair for pair in dict.fromkeys(pairs) if pair[1] not in forbidden]
    rng.shuffle(pairs)
    return pairs
