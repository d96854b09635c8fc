"""Passages about countries, cities and elements, and questions whose answers stand in one or in several of them.

Four kinds of questions. `one`: one answer in one passage. `several`: each answer stands in another passage ("Which
cities lie in Gabon?"). `chain`: one answer that takes two passages, of which the first names what the second is about
("What is the currency of the country in which Enugu lies?"). `fan`: both ("What are the capitals of the countries that
border Chad?"). The passages of a row are all that its answers need; one that holds none of the answers is the link to
the others.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from paperflows.components.data.world.facts import Fact, facts, facts_by_subject, facts_of_smaller_cities
from paperflows.components.data.world.hashing import choose, part_of, stable_number
from paperflows.components.data.world.render_facts import fact_sentence

Row = dict[str, Any]

SMALLEST_CITY = 55_000
MOST_ANSWERS = 4  # with the linking passage a question needs at most five
_CHAINS = 400
_CITIES = 400  # of those that are asked for their country

# relation -> the passage of a subject that states it
_SIDES = {
    "on continent": "place",
    "borders": "place",
    "population": "people",
    "language": "people",
    "currency": "economy",
    "area": "economy",
}
_SEVERAL = {
    "located in": ("Which cities lie in {}?", "Name the cities of {}.", "What cities does {} have?"),
    "currency": ("Which countries pay with {}?", "In which countries is {} the currency?"),
    "language": ("In which countries is {} an official language?", "Which countries have {} as a language of state?"),
}
# not the continent, which the time zone of a city gives away
_OF_ONE = {
    "capital of": ("What is the capital of the country in which {} lies?", "Name the capital of the country of {}."),
    "currency": ("What is the currency of the country in which {} lies?", "How do people pay in the country of {}?"),
    "language": (
        "What is an official language of the country in which {} lies?",
        "Which language has official status in the country of {}?",
    ),
}
_ONE = {
    # relation -> wordings that ask for the object, wordings that ask for the subject
    "capital of": (("Which country has {s} as its capital?",), ("What is the capital of {o}?", "Name {o}'s capital.")),
    "on continent": (("On which continent is {s}?", "Which continent does {s} belong to?"), ()),
    "currency": (("What is the currency of {s}?", "What money do people in {s} pay with?"), ()),
    "located in": (("In which country is {s}?", "What country does the city of {s} belong to?"), ()),
    "symbol": ((), ("Which element has the symbol {o}?", "What does {o} stand for in chemistry?")),
}
_OF_NEIGHBOURS = {
    "capital of": ("What are the capitals of the countries that border {}?", "Name the capitals of {}'s neighbours."),
    "currency": ("What are the currencies of the countries that border {}?", "How do people pay in {}'s neighbours?"),
    "language": (
        "What are the official languages of the countries that border {}?",
        "Which languages have official status in {}'s neighbours?",
    ),
}


def document_rows() -> dict[str, list[Row]]:
    """Splits train, validation, test of questions, and the passages; a question's subject decides its split."""
    splits: dict[str, list[Row]] = {"passages": _passages(), "train": [], "validation": [], "test": []}
    for subject, row in (*_one(), *_several(), *_chain(), *_fan()):
        splits[part_of(f"fact|{subject}")].append({"id": f"q{stable_number(row['question']):016x}", **row})
    return splits


def _everything() -> tuple[Fact, ...]:
    """Facts with borders told from both sides."""
    back = tuple(Fact(f.object, f.relation, f.subject, f.kind) for f in facts() if f.relation == "borders")  # type: ignore[arg-type]
    return (*facts(), *back, *facts_of_smaller_cities(SMALLEST_CITY))


def _place(fact: Fact) -> str:
    """Number of the passage that states the fact."""
    return f"{fact.subject}/{_SIDES[fact.relation] if fact.kind == 'country' else fact.kind}"


def _passages() -> list[Row]:
    stated: dict[str, list[Fact]] = defaultdict(list)
    for fact in _everything():
        stated[_place(fact)].append(fact)
    return [
        {
            "id": place,
            "title": some[0].subject,
            "text": " ".join(fact_sentence(f, stable_number("document", place, f.relation, f.object)) for f in some),
        }
        for place, some in stated.items()
    ]


def _one() -> Iterator[tuple[str, Row]]:
    cities = [f.subject for f in facts() if f.relation == "located in"]
    asked = set(sorted(cities, key=lambda name: stable_number("one", name))[:_CITIES])
    for fact in facts():
        if fact.relation not in _ONE or (fact.relation == "located in" and fact.subject not in asked):
            continue
        for wordings, answer in zip(_ONE[fact.relation], (str(fact.object), fact.subject), strict=True):
            for wording in wordings:
                question = wording.format(s=fact.subject, o=fact.object)
                yield fact.subject, _row("one", fact.subject, question, [answer], [_place(fact)])


def _several() -> Iterator[tuple[str, Row]]:
    subjects: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in _everything():
        if fact.relation in _SEVERAL:
            subjects[fact.relation, str(fact.object)].append(fact)
    for (relation, shared), some in subjects.items():
        if 2 <= len(some) <= MOST_ANSWERS + 1:
            question = choose(_SEVERAL[relation], "several", shared).format(shared)
            yield shared, _row("several", shared, question, [f.subject for f in some], [_place(f) for f in some])


def _chain() -> Iterator[tuple[str, Row]]:
    about = _about()
    capitals = {f.subject for f in facts() if f.relation == "capital of"}
    cities = [f for f in facts() if f.relation == "located in" and f.subject not in capitals]
    for link in sorted(cities, key=lambda f: stable_number("chain", f.subject))[:_CHAINS]:
        relation = choose(tuple(_OF_ONE), "chain relation", link.subject)
        if found := about.get((relation, str(link.object))):
            answer, place = found[0]
            said = [link.subject, *(str(fact.object) for fact in facts_by_subject()[link.subject])]
            if any(answer in text.replace("_", " ") for text in said):
                continue  # its own name or its time zone may bear the answer's: then the link alone would do
            question = choose(_OF_ONE[relation], "chain", link.subject).format(link.subject)
            yield link.subject, _row("chain", link.subject, question, [answer], [_place(link), place])


def _fan() -> Iterator[tuple[str, Row]]:
    about = _about()
    neighbours: dict[str, list[str]] = defaultdict(list)
    for fact in _everything():
        if fact.relation == "borders":
            neighbours[fact.subject].append(str(fact.object))
    for country, others in neighbours.items():
        for relation, wordings in _OF_NEIGHBOURS.items():
            found = [about[relation, other][0] for other in others if (relation, other) in about]
            answers = [answer for answer, _ in found]
            if 2 <= len(others) <= MOST_ANSWERS and len(found) == len(others) and len(set(answers)) == len(answers):
                question = choose(wordings, "fan", country, relation).format(country)
                yield country, _row("fan", country, question, answers, [f"{country}/place", *(p for _, p in found)])


def _about() -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(relation, country) -> (answer, passage) of each fact that states it."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for fact in facts():
        if fact.relation == "capital of":
            found[fact.relation, str(fact.object)].append((fact.subject, _place(fact)))
        elif fact.kind == "country" and fact.relation in _OF_ONE:
            found[fact.relation, fact.subject].append((str(fact.object), _place(fact)))
    return found


def _row(kind: str, topic: str, question: str, answers: list[str], places: list[str]) -> Row:
    return {
        "question": question,
        "answers": [answer.removeprefix("the ") for answer in answers],
        "passages": list(dict.fromkeys(places)),
        "topic": topic,
        "relation": kind,
    }
