"""Which passages' titles a text names: the links that a question can be followed along."""

import re
from collections.abc import Iterable

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


class TitleLinks:
    """Finds the titles of a corpus in texts, longest first, without case of the article.

    Args:
        titles: of all passages; those of more than `longest` words are left out.
    """

    def __init__(self, titles: Iterable[str], *, longest: int = 6) -> None:
        self._longest = longest
        self._titles: dict[tuple[str, ...], str] = {}
        for title in titles:
            bare = title.removeprefix("the ").removeprefix("The ")
            words = tuple(_WORD.findall(bare))
            if 0 < len(words) <= longest:
                self._titles.setdefault(words, bare)

    def named_in(self, text: str) -> list[str]:
        """Titles that stand in the text, in its order, each once; a title inside a longer one is not counted."""
        words = _WORD.findall(text)
        found: dict[str, None] = {}
        place = 0
        while place < len(words):
            for size in range(min(self._longest, len(words) - place), 0, -1):
                if title := self._titles.get(tuple(words[place : place + size])):
                    found[title] = None
                    place += size
                    break
            else:
                place += 1
        return list(found)
