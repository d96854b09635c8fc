"""Facts as English sentences and questions. A style number fixes the wording and how numbers are rounded."""

from paperflows.components.data.world.facts import Fact
from paperflows.components.data.world.hashing import choose

SENTENCES: dict[tuple[str, str], tuple[str, ...]] = {
    ("located in", "city"): (
        "{s} is a city in {o}.",
        "{s} lies in {o}.",
        "One of the large cities of {o} is {s}.",
        "{o} is the country where you find {s}.",
        "The city of {s} belongs to {o}.",
        "If you travel to {s}, you are in {o}.",
    ),
    ("capital of", "city"): (
        "{s} is the capital of {o}.",
        "The capital of {o} is {s}.",
        "{s} serves as the capital city of {o}.",
        "In {o}, the capital is {s}.",
        "{o} has {s} as its capital.",
    ),
    ("on continent", "country"): (
        "{s} is part of {o}.",
        "{s} is in {o}.",
        "On the map, {s} belongs to {o}.",
        "{o} is the continent of {s}.",
        "Among the countries of {o} is {s}.",
    ),
    ("borders", "country"): (
        "{s} borders {o}.",
        "{o} and {s} share a border.",
        "{o} is a neighbour of {s}.",
        "There is a common frontier between {s} and {o}.",
        "{s} lies right next to {o}.",
    ),
    ("population", "country"): (
        "{s} has {o} inhabitants.",
        "{o} people live in {s}.",
        "The population of {s} is {o}.",
        "{s} is home to {o} people.",
        "The number of people in {s} is {o}.",
    ),
    ("population", "city"): (
        "The city of {s} has {o} inhabitants.",
        "{o} people live in the city of {s}.",
        "The population of the city of {s} is {o}.",
        "The city of {s} is home to {o} people.",
        "{s} is a city of {o} residents.",
    ),
    ("area", "country"): (
        "{s} covers {o} square kilometres.",
        "The area of {s} is {o} square kilometres.",
        "{s} has a surface of {o} square kilometres.",
        "The territory of {s} extends over {o} square kilometres.",
    ),
    ("currency", "country"): (
        "The currency of {s} is {o}.",
        "People in {s} pay with {o}.",
        "{o} is the money used in {s}.",
        "In {s}, prices are given in the national currency, which is {o}.",
        "Shops in {s} accept {o}.",
    ),
    ("language", "country"): (
        "{o} is an official language of {s}.",
        "In {s}, {o} has official status.",
        "Laws in {s} may be written in {o}.",
        "{s} recognises {o} as a language of the state.",
    ),
    ("time zone", "city"): (
        "Clocks in {s} follow the {o} time zone.",
        "The time zone of {s} is {o}.",
        "{o} is the zone that sets the local time in {s}.",
        "Local time in {s} is that of the zone {o}.",
    ),
    ("symbol", "element"): (
        "The symbol of {s} is {o}.",
        "Chemists write {s} as {o}.",
        "In the periodic table, {o} stands for {s}.",
        "{o} is short for {s} in chemical formulas.",
    ),
    ("atomic number", "element"): (
        "The atomic number of {s} is {o}.",
        "{s} is element number {o}.",
        "An atom of {s} has a nuclear charge of {o}.",
        "In the periodic table, {s} has number {o}.",
    ),
    ("atomic mass", "element"): (
        "The atomic mass of {s} is {o}.",
        "An atom of {s} weighs {o} atomic mass units.",
        "{s} has a mass of {o} units per atom.",
        "On average, atoms of {s} have a mass of {o} units.",
    ),
}

# (question, its class); the object or the subject is asked for
QUESTIONS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("located in", "city"): (
        ("In which country is {s}?", "place"),
        ("Where do you find the city of {s}?", "place"),
        ("What country does {s} belong to?", "place"),
    ),
    ("capital of", "city"): (
        ("What is the capital of {o}?", "place"),
        ("Which city is the capital of {o}?", "place"),
        ("Which country has {s} as its capital?", "place"),
    ),
    ("on continent", "country"): (("On which continent is {s}?", "place"),),
    ("population", "country"): (
        ("How many people live in {s}?", "number"),
        ("What is the population of {s}?", "number"),
        ("How large is the population of {s}?", "number"),
    ),
    ("population", "city"): (
        ("How many inhabitants does the city of {s} have?", "number"),
        ("What is the number of residents of {s}?", "number"),
    ),
    ("area", "country"): (
        ("How many square kilometres does {s} cover?", "number"),
        ("What is the area of {s}?", "number"),
    ),
    ("currency", "country"): (
        ("What money do people use in {s}?", "thing"),
        ("What is the currency of {s}?", "thing"),
        ("What do people in {s} pay with?", "thing"),
    ),
    ("atomic number", "element"): (("What is the atomic number of {s}?", "number"),),
    ("symbol", "element"): (
        ("What does the symbol {o} stand for?", "thing"),
        ("Which element has the symbol {o}?", "thing"),
    ),
    ("time zone", "city"): (
        ("What time is it in {s} when it is noon in London?", "time"),
        ("When does the sun rise in {s} tomorrow?", "time"),
        ("At what hour does the working day begin in {s}?", "time"),
        ("When do the shops in {s} close tonight?", "time"),
    ),
}

_EXACT = ("{}",)
_ROUGH = ("about {}", "roughly {}", "around {}", "approximately {}")


def fact_sentence(fact: Fact, style: int) -> str:
    """One sentence for the fact."""
    text = choose(SENTENCES[fact.relation, fact.kind], style, "pattern")
    return _capitalise(text.format(s=fact.subject, o=quantity(fact, style)))


def quantity(fact: Fact, style: int) -> str:
    """The object in words; large numbers exact or rounded."""
    if isinstance(fact.object, str):
        return fact.object
    if fact.relation not in ("population", "area"):
        return f"{fact.object:g}" if isinstance(fact.object, int) else f"{fact.object:.2f}"
    if choose((True, False, False), style, "exact"):
        return f"{fact.object:,}"
    return choose(_ROUGH, style, "rough").format(rounded(float(fact.object)))


def rounded(number: float) -> str:
    """Two leading digits, in words where large: 66,987,244 -> `67 million`."""
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if number >= size:
            digits = f"{number / size:.0f}" if number / size >= 10 else f"{number / size:.1f}"
            return digits.removesuffix(".0") + word
    step = 10 ** max(len(str(round(number))) - 2, 0)
    return f"{round(number / step) * step:,}"


def fact_questions(fact: Fact) -> tuple[tuple[str, str], ...]:
    """(question, class) that the fact answers."""
    patterns = QUESTIONS.get((fact.relation, fact.kind), ())
    return tuple((_capitalise(text.format(s=fact.subject, o=fact.object)), label) for text, label in patterns)


def _capitalise(text: str) -> str:
    return text[0].upper() + text[1:]
