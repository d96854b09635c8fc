"""Long texts cut into passages at sentence ends."""

import re

_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")


def sentences(text: str) -> list[str]:
    """The sentences of a text: cut after `.`, `!` or `?` before a capital or a digit; nothing but space is lost."""
    parts: list[str] = []
    start = 0
    for match in _END.finditer(text):
        before = text[start : match.start()]
        if re.search(r"\b(?:[A-Z]|Mr|Mrs|Dr|St|vs|c|ca|e\.g|i\.e)\.$", before):
            continue  # an initial or an abbreviation
        parts.append(text[start : match.end()].strip())
        start = match.end()
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def chunk(text: str, *, max_words: int, overlap: int = 0) -> list[str]:
    """Passages of whole sentences with at most `max_words` words; a longer sentence is cut between words.

    Args:
        overlap: sentences that a passage repeats from the end of the one before.

    Raises:
        ValueError: `max_words` is not positive or `overlap` negative.
    """
    if max_words < 1 or overlap < 0:
        raise ValueError(f"max_words must be positive and overlap not negative, got {max_words} and {overlap}")
    pieces = [piece for sentence in sentences(text) for piece in _cut(sentence, max_words)]
    found: list[str] = []
    held: list[str] = []
    fresh = 0
    for piece in pieces:
        if fresh and _words(held) + _words([piece]) > max_words:
            found.append(" ".join(held))
            held, fresh = held[len(held) - overlap :] if overlap else [], 0
            while held and _words(held) + _words([piece]) > max_words:
                held = held[1:]
        held.append(piece)
        fresh += 1
    if fresh:
        found.append(" ".join(held))
    return found


def _cut(sentence: str, max_words: int) -> list[str]:
    words = sentence.split()
    return [" ".join(words[i : i + max_words]) for i in range(0, len(words), max_words)]


def _words(parts: list[str]) -> int:
    return sum(len(part.split()) for part in parts)
