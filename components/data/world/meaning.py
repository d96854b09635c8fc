"""How near two meanings are, from 0 (nothing in common) to 5 (the same), known from their slots and not from words.

    score = max(0, 5 - sum over slots of weight * distance)

The distance of two fillers is 0 for the same concept, 1 for unrelated ones, and between for near ones:

| slot | weight | distances other than 0 and 1 |
| --- | --- | --- |
| action | 3.5 | same kind of action 0.5 |
| agent, object | 2.2 each | one names the kind of the other 0.3, siblings 0.6; roles swapped: 3.0 for both |
| negation | 3.0 | |
| place | 1.8 | said only once 0.5, both indoors or both outdoors 0.8 |
| attribute of agent, of object | 1.6 each | said only once 0.5, unlike scales 0.8 |
| count | 1.4 | two against three 0.6 |
| time | 1.2 | said only once 0.5 |
| fact: relation | 2.8 | same side of the subject 0.5 |
| fact: subject | 2.8 | same kind 0.8 |
| fact: object | 1.4 | same relation 0.8; numbers within a tenth 0.2, other numbers 0.8 |

A scene and a fact have nothing in common.
"""

from paperflows.components.data.world.facts import FAMILIES, Fact
from paperflows.components.data.world.lexicon import ATTRIBUTES, PLACES, VERBS
from paperflows.components.data.world.scenes import Scene, noun

HIGHEST = 5.0


def score(first: Scene | Fact, second: Scene | Fact) -> float:
    """Similarity 0 to 5 of two meanings; symmetric; two decimals."""
    if isinstance(first, Scene) and isinstance(second, Scene):
        lost = _scene_loss(first, second)
    elif isinstance(first, Fact) and isinstance(second, Fact):
        lost = _fact_loss(first, second)
    else:
        return 0.0
    return round(max(0.0, HIGHEST - lost), 2)


def _scene_loss(a: Scene, b: Scene) -> float:
    same_action = a.action == b.action
    lost = 3.5 * (0.0 if same_action else 0.5 if VERBS[a.action].group == VERBS[b.action].group else 1.0)
    if same_action and a.object and (a.agent, a.object) == (b.object, b.agent):
        lost += 3.0
    else:
        lost += 2.2 * _noun_distance(a.agent, b.agent) + 2.2 * _noun_distance(a.object, b.object)
    lost += 1.6 * _attribute_distance(a.agent_attribute, b.agent_attribute)
    lost += 1.6 * _attribute_distance(a.object_attribute, b.object_attribute)
    lost += 1.8 * _place_distance(a.place, b.place)
    lost += 1.2 * (0.0 if a.time == b.time else 0.5 if not (a.time and b.time) else 1.0)
    lost += 1.4 * (0.0 if a.count == b.count else 0.6 if 1 not in (a.count, b.count) else 1.0)
    return lost + 3.0 * (a.negated != b.negated)


def _noun_distance(a: str, b: str) -> float:
    if a == b:
        return 0.0
    if not a or not b or noun(a).group != noun(b).group:
        return 1.0
    return 0.3 if a.startswith("any ") or b.startswith("any ") else 0.6


def _attribute_distance(a: str, b: str) -> float:
    if a == b:
        return 0.0
    if not a or not b:
        return 0.5
    return 1.0 if ATTRIBUTES[a].group == ATTRIBUTES[b].group else 0.8


def _place_distance(a: str, b: str) -> float:
    if a == b:
        return 0.0
    if not a or not b:
        return 0.5
    return 0.8 if PLACES[a].group == PLACES[b].group else 1.0


def _fact_loss(a: Fact, b: Fact) -> float:
    if a.relation == b.relation == "borders" and (a.subject, a.object) == (b.object, b.subject):
        return 0.0
    lost = 2.8 * (0.0 if a.relation == b.relation else 0.5 if FAMILIES[a.relation] == FAMILIES[b.relation] else 1.0)
    lost += 2.8 * (0.0 if a.subject == b.subject else 0.8 if a.kind == b.kind else 1.0)
    if a.object == b.object:
        return lost
    if isinstance(a.object, str) or isinstance(b.object, str):
        return lost + 1.4 * (0.8 if a.relation == b.relation else 1.0)
    near = abs(a.object - b.object) <= 0.1 * max(a.object, b.object)
    return lost + 1.4 * (0.2 if near and a.relation == b.relation else 0.8)
