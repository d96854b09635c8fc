"""Letter problems over real names, with chains of reasoning by a program that makes people's and models' slips.

The chains are no language model's: each is worked by the rules below, with slips drawn at fixed rates that depend on
the problem, so that on some problems most chains share a wrong answer. The gold answer is computed, never drawn.
"""

from random import Random
from typing import Any

from paperflows.components.data.world.facts import facts_of
from paperflows.components.data.world.hashing import stable_number

Row = dict[str, Any]
CHAINS = 40


def chain_rows(part: str, count: int) -> list[Row]:
    """Rows of reasoning chains: the last letters of three to five names, 40 chains each."""
    rng = Random(stable_number("chains", part))
    names = sorted({f.subject for f in facts_of(part) if f.subject.isalpha() and 3 <= len(f.subject) <= 12})
    rows = []
    for number in range(count):
        words = rng.sample(names, rng.randint(3, 5))
        # names with a weak last letter are the ones that a careless worker reads as ending in the letter before
        hard = {word for word in words if rng.random() < 0.12}
        chains = [_chain(words, hard, rng) for _ in range(CHAINS)]
        rows.append(
            {
                "id": number,
                "question": f'Take the last letters of the words in "{" ".join(words)}" and join them.',
                "answer": "".join(word[-1] for word in words).casefold(),
                "chains": chains,
            }
        )
    return rows


def _chain(words: list[str], hard: set[str], rng: Random) -> Row:
    steps, letters = [], []
    for word in words:
        slip = rng.random() < (0.6 if word in hard else 0.02)
        letter = word[-2] if slip else word[-1]
        if rng.random() < 0.015:
            continue  # a word passed over
        letters.append(letter.casefold())
        steps.append(f"The last letter of '{word}' is '{letter.casefold()}'.")
    joined = "".join(letters)
    if rng.random() < 0.03 and len(joined) > 2:
        joined = joined[:-2] + joined[-1] + joined[-2]
    text = " ".join([*steps, f"Joined they are '{joined}'. The answer is {joined}."])
    return {"model": "program", "style": "steps", "temperature": None, "text": text, "answer": joined or None}
