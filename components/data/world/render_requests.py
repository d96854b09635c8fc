"""What people ask of an assistant that no lookup helps with, and what only a look at the present answers.

Labels: `chat`, `writing`, `arithmetic`, `code` need no knowledge of the world; the answer to `now` (prices, weather,
offices) and `latest` (results, releases, news) changes with time. The wordings of train, validation and test differ.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from paperflows.components.data.world.facts import facts
from paperflows.components.data.world.hashing import stable_number

Row = dict[str, Any]

# label -> part -> wordings
_WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "now": {
        "train": (
            "What is the weather like in {city} right now?",
            "Who is the current president of {country}?",
            "What is the exchange rate of {money} today?",
            "How many people live in {country} at the moment?",
            "Is it raining in {city} this morning?",
            "How much does a flight to {city} cost this week?",
            "Which party governs {country} these days?",
            "What is the unemployment rate in {country} this year?",
            "Who holds the office of mayor in {city} today?",
        ),
        "validation": ("How warm is it in {city} this afternoon?", "Who currently leads the government of {country}?"),
        "test": (
            "What temperature does {city} have today?",
            "Who is now the head of state of {country}?",
            "How strong is {money} against the dollar at present?",
            "What does a litre of petrol cost in {country} nowadays?",
            "Are there delays at the airport of {city} tonight?",
            "What is the inflation rate of {country} this month?",
        ),
    },
    "latest": {
        "train": (
            "What was the score of the last match of {country}'s football team?",
            "What is the latest news from {city}?",
            "Which film was released in {country} most recently?",
            "What did the parliament of {country} decide last week?",
        ),
        "validation": ("What happened in {city} yesterday?",),
        "test": (
            "Who won the most recent election in {country}?",
            "Which concerts took place in {city} last night?",
            "What is the newest law passed in {country}?",
            "What are today's headlines in {country}?",
        ),
    },
    "chat": {
        "train": (
            "Hello, I am {name}. How are you?",
            "I feel {mood} today. Cheer me up.",
            "Thank you, {name}, that was kind.",
            "Do you like {thing}?",
            "I had a long day with {thing} and just want to talk.",
            "Wish {name} a good night.",
        ),
        "validation": ("Tell {name} that I am {mood}.", "Good morning! Did you sleep well?"),
        "test": (
            "Hi there, my name is {name}, nice to meet you.",
            "I am so {mood}, say something nice.",
            "What would you say if {name} gave you {thing}?",
            "Shall we have a chat about {thing}?",
        ),
    },
    "writing": {
        "train": (
            "Write a short poem about {thing}.",
            "Draft an e-mail to {name} that moves our meeting to {day}.",
            "Rewrite this sentence politely: {name}, bring me {thing}.",
            "Make up a story in which {name} searches for {thing}.",
            "Give me a slogan for a shop that sells {thing}.",
            "Write a dialogue in which {name} looks up at {thing}.",
            "Compose a poem about a search engine that dreams of {thing}.",
        ),
        "validation": ("Invent a riddle about {thing}.", "Write a note that reminds {name} of {day}."),
        "test": (
            "Compose four lines of verse on {thing}.",
            "Put this into a friendly message: {name} must come on {day}.",
            "Tell a tale of {name}, who lost {thing}.",
            "Write a scene in which a detective googles {thing}.",
            "Shorten this: {name} was, on {day}, very happy indeed about {thing}.",
        ),
    },
    "arithmetic": {
        "train": (
            "What is {a} plus {b}?",
            "{name} has {a} apples and buys {b} more. How many are there?",
            "Multiply {a} by {b}.",
            "A box holds {a} pens. How many pens are in {b} boxes?",
            "How much is {a} minus {b}?",
        ),
        "validation": ("Add {a} to {b}.", "{name} shares {a} sweets among {b} friends. How many does each get?"),
        "test": (
            "Compute the product of {a} and {b}.",
            "{name} walks {a} miles a day for {b} days. How far is that?",
            "If {a} tickets cost {b} dollars each, what is the total?",
            "What remains when {b} is taken from {a}?",
        ),
    },
    "code": {
        "train": (
            "Write a function that sorts a list of {a} numbers.",
            "How do I reverse a string in Python?",
            "Fix this loop: for i in range({a}) print(i)",
        ),
        "validation": ("Write a regular expression for a number of {a} digits.",),
        "test": (
            "Implement a binary search over {a} entries.",
            "Turn this SQL query into a loop: select * from t limit {a}",
            "Write a unit test for a function that adds {a} and {b}.",
            "Search and replace {a} by {b} in a file with a shell command.",
        ),
    },
}
_NAMES = (
    "Ada",
    "Ben",
    "Chloe",
    "Dev",
    "Emma",
    "Farid",
    "Grace",
    "Hugo",
    "Irma",
    "Jonas",
    "Kira",
    "Liam",
    "Mei",
    "Noah",
)
_THINGS = (
    "the sea", "an old bridge", "a lost key", "autumn leaves", "a rainy bus stop", "my grandmother's soup",
    "a red bicycle", "the moon", "a sleepy cat", "fresh bread", "a library", "an umbrella", "a paper boat",
    "the first snow",
)  # fmt: skip
_MOODS = ("tired", "happy", "nervous", "bored", "proud", "lonely", "sad")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def request_rows(part: str, count: int) -> list[Row]:
    """At most `count` different requests of each label."""
    return [
        {"text": text, "label": label}
        for label, wordings in _WORDINGS.items()
        for text in _filled(wordings[part], Random(stable_number("requests", part, label)), count)
    ]


def _filled(wordings: tuple[str, ...], rng: Random, count: int) -> list[str]:
    cities = [f.subject for f in facts() if f.relation == "located in"]
    countries = [f.subject for f in facts() if f.relation == "on continent"]
    money = [str(f.object) for f in facts() if f.relation == "currency"]
    draw: dict[str, Callable[[], str]] = {
        "city": lambda: rng.choice(cities), "country": lambda: rng.choice(countries),
        "money": lambda: rng.choice(money), "name": lambda: rng.choice(_NAMES), "thing": lambda: rng.choice(_THINGS),
        "mood": lambda: rng.choice(_MOODS),
        "day": lambda: rng.choice(_DAYS), "a": lambda: str(rng.randint(20, 99)), "b": lambda: str(rng.randint(2, 19)),
    }  # fmt: skip
    found: dict[str, None] = {}
    for _ in range(20 * count):
        found[rng.choice(wordings).format(**{name: make() for name, make in draw.items()})] = None
        if len(found) == count:
            break
    return list(found)
