"""Scenes as English sentences. A style number fixes the sentence pattern and the synonym of every slot."""

from paperflows.components.data.world.hashing import choose, stable_number
from paperflows.components.data.world.lexicon import ATTRIBUTES, PLACES, TIMES, VERBS
from paperflows.components.data.world.scenes import Scene, noun

PATTERNS = ("active", "active", "present", "passive", "place first", "there is", "caption", "cleft")
COUNTS = {1: ("one",), 2: ("two", "a pair of"), 3: ("three", "a trio of")}
_VOWEL_SOUND = ("a", "e", "i", "o", "u")
_NOT_VOWEL_SOUND = ("uni", "use", "one", "eu")


def sentence(scene: Scene, style: int) -> str:
    """One sentence for the scene; equal styles give equal words to equal slots."""
    pattern = choose(PATTERNS, style, "pattern")
    if pattern == "passive" and not (scene.object and _forms(scene, style)[2]):
        pattern = "active"
    if pattern == "place first" and not (scene.place or scene.time):
        pattern = "present"
    if scene.negated and pattern in ("caption", "present", "cleft", "there is"):
        pattern = "there is" if scene.count == 1 else "active"
    body = _PATTERNS[pattern](scene, style)
    return body[0].upper() + body[1:] + ("" if pattern == "caption" and style % 2 else ".")


def article(phrase: str) -> str:
    """The phrase after "a" or "an", by its first sound."""
    vowel = phrase.startswith(_VOWEL_SOUND) and not phrase.startswith(_NOT_VOWEL_SOUND)
    return f"{'an' if vowel else 'a'} {phrase}"


def third_person(base: str) -> str:
    """`carry` -> `carries`, `look at` -> `looks at`."""
    word, *rest = base.split(" ", 1)
    if word.endswith(("s", "x", "ch", "sh", "o")):
        word += "es"
    elif word.endswith("y") and word[-2] not in "aeiou":
        word = word[:-1] + "ies"
    else:
        word += "s"
    return " ".join((word, *rest))


def agent_phrase(scene: Scene, style: int, *, bare: bool = False) -> str:
    """`an elderly man`, `two tall women`; bare leaves the article out."""
    plural = scene.count > 1
    words = _noun_words(scene.agent, scene.agent_attribute, plural, style, "agent")
    if plural:
        return f"{choose(COUNTS[scene.count], style, 'count')} {words}"
    return words if bare else _determine(words, style)


def agents_words(scene: Scene, style: int) -> str:
    """`tall women`: the agents, however many, without article or number."""
    return _noun_words(scene.agent, scene.agent_attribute, True, style, "agent")


def object_phrase(scene: Scene, style: int) -> str:
    """`a red apple`, `the soup`, `some bread`; empty for an intransitive action."""
    if not scene.object:
        return ""
    words = _noun_words(scene.object, scene.object_attribute, False, style, "object")
    if not _noun_form(scene.object, style, "object")[1]:
        return f"{choose(('some', 'the'), style, 'mass')} {words}"
    return _determine(words, style)


def setting(scene: Scene, style: int) -> str:
    """Place and time, with a space before each."""
    place = choose(PLACES[scene.place].forms, style, "place") if scene.place else ""
    time = choose(TIMES[scene.time].forms, style, "time") if scene.time else ""
    return "".join(f" {phrase}" for phrase in (place, time) if phrase)


def _determine(words: str, style: int) -> str:
    return article(words) if stable_number(style, "article") % 4 else f"the {words}"


def _noun_form(key: str, style: int, slot: str) -> tuple[str, str]:
    return choose(noun(key).forms, style, slot)


def _noun_words(key: str, attribute: str, plural: bool, style: int, slot: str) -> str:
    form = _noun_form(key, style, slot)[plural]
    return f"{choose(ATTRIBUTES[attribute].forms, style, slot, 'attribute')} {form}" if attribute else form


def _forms(scene: Scene, style: int) -> tuple[str, str, str]:
    return choose(VERBS[scene.action].forms, style, "action")


def _with_object(verb: str, scene: Scene, style: int) -> str:
    thing = object_phrase(scene, style)
    return f"{verb} {thing}" if thing else verb


def _be(plural: bool, negated: bool) -> str:
    return ("are" if plural else "is") + (" not" if negated else "")


def _active(scene: Scene, style: int) -> str:
    verb = _with_object(f"{_be(scene.count > 1, scene.negated)} {_forms(scene, style)[1]}", scene, style)
    return f"{agent_phrase(scene, style)} {verb}{setting(scene, style)}"


def _present(scene: Scene, style: int) -> str:
    base = _forms(scene, style)[0]
    verb = _with_object(base if scene.count > 1 else third_person(base), scene, style)
    return f"{agent_phrase(scene, style)} {verb}{setting(scene, style)}"


def _passive(scene: Scene, style: int) -> str:
    participle = _forms(scene, style)[2]
    be = _be(False, scene.negated)
    agent = agent_phrase(scene, style)
    return f"{object_phrase(scene, style)} {be} being {participle} by {agent}{setting(scene, style)}"


def _place_first(scene: Scene, style: int) -> str:
    return f"{setting(scene, style).strip()}, {_active(scene.but(place='', time=''), style)}"


def _there_is(scene: Scene, style: int) -> str:
    verb = _with_object(_forms(scene, style)[1], scene, style)
    if scene.negated:
        return f"there is no {agent_phrase(scene, style, bare=True)} {verb}{setting(scene, style)}"
    words = _noun_words(scene.agent, scene.agent_attribute, False, style, "agent")
    agent = article(words) if scene.count == 1 else agent_phrase(scene, style)
    return f"there {_be(scene.count > 1, False)} {agent} {verb}{setting(scene, style)}"


def _caption(scene: Scene, style: int) -> str:
    verb = _with_object(_forms(scene, style)[1], scene, style)
    return f"{agent_phrase(scene, style, bare=True)} {verb}{setting(scene, style)}"


def _cleft(scene: Scene, style: int) -> str:
    verb = _with_object(f"{_be(scene.count > 1, False)} {_forms(scene, style)[1]}", scene, style)
    pronoun = "who" if noun(scene.agent).group == "person" else "that"
    return f"it is {agent_phrase(scene, style)} {pronoun} {verb}{setting(scene, style)}"


_PATTERNS = {
    "active": _active,
    "present": _present,
    "passive": _passive,
    "place first": _place_first,
    "there is": _there_is,
    "caption": _caption,
    "cleft": _cleft,
}
