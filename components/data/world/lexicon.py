"""The words of the everyday scenes: concepts with their synonyms, their groups, and what goes with what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A thing or being.

    Attributes:
        forms: (singular, plural) of each synonym; the plural is "" for a mass noun.
        group: concepts of one group are siblings; no thing is two of them at once, except people by trade.
        scales: kinds of attributes it can have.
    """

    key: str
    forms: tuple[tuple[str, str], ...]
    group: str
    scales: tuple[str, ...]


@dataclass(frozen=True)
class Verb:
    """An action.

    Attributes:
        forms: (base, -ing form, participle) of each synonym; "" as participle: no passive.
        group: actions of one group are siblings.
        agents: groups of nouns that do it.
        objects: groups of nouns it is done to; empty for an intransitive verb.
        where: "in", "out" or "any": places where it is done.
        opposite: the action that cannot be meant at the same time, or "".
    """

    key: str
    forms: tuple[tuple[str, str, str], ...]
    group: str
    agents: tuple[str, ...]
    objects: tuple[str, ...]
    where: str
    opposite: str = ""


@dataclass(frozen=True)
class Word:
    """An attribute, a place or a time: a group whose members exclude one another, and its wordings."""

    key: str
    forms: tuple[str, ...]
    group: str


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _nouns(group: str, scales: str, words: str) -> list[Noun]:
    """`man=men/guy` is the concept man with an irregular plural and a synonym; a final `~` marks a mass noun."""
    nouns = []
    for entry in words.split(", "):
        forms = []
        for form in entry.split("/"):
            singular, _, plural = form.partition("=")
            mass = singular.endswith("~")
            singular = singular.rstrip("~")
            forms.append((singular, "" if mass else plural or _plural(singular)))
        nouns.append(Noun(forms[0][0], tuple(forms), group, tuple(scales.split())))
    return nouns


_NOUN_LIST = [
    *_nouns("person", "age height mood energy", "man=men/guy/gentleman=gentlemen, woman=women/lady"),
    *_nouns("person", "height mood energy", "boy/lad, girl, child=children/kid, student/pupil, grandmother/grandma"),
    *_nouns("person", "height mood energy", "grandfather/grandpa"),
    *_nouns(
        "person", "age mood energy", "farmer, chef, doctor/physician, teacher, soldier, police officer/cop, musician"
    ),
    *_nouns(
        "person", "age mood energy", "artist, worker/laborer, nurse, firefighter/fireman=firemen, athlete, tourist"
    ),
    *_nouns("person", "age mood energy", "waiter, dancer, sailor/seaman=seamen, lawyer/attorney, tailor, mechanic"),
    *_nouns("animal", "size colour", "dog/hound, cat, horse, cow, goat, rabbit/bunny, duck, pig/hog, monkey, bear"),
    *_nouns("animal", "size colour", "fox, donkey, goose=geese, sheep=sheep"),
    *_nouns("fruit", "size", "apple, banana, orange, pear, peach, melon, mango=mangoes"),
    *_nouns("dish", "taste", "soup~, pizza, sandwich, salad, cake, pie, omelette, stew~, rice~, bread~"),
    *_nouns("vegetable", "size", "carrot, onion, tomato=tomatoes, potato=potatoes, cucumber, pumpkin"),
    *_nouns("instrument", "newness", "guitar, piano, violin/fiddle, drum, flute, trumpet, cello, accordion"),
    *_nouns("vehicle", "paint newness", "car/automobile, bus/coach, truck/lorry, van, tractor, ambulance"),
    *_nouns("cycle", "paint newness", "bicycle/bike, motorcycle/motorbike, scooter, tricycle"),
    *_nouns("ball", "paint", "basketball, football, tennis ball, frisbee, balloon"),
    *_nouns("text", "length", "book, letter, newspaper, magazine, report, poem, diary"),
    *_nouns("furniture", "paint newness", "chair, table, sofa/couch, bench, shelf=shelves, cupboard, desk"),
    *_nouns("structure", "size newness", "house, wall, fence, shed, bridge, tower, garage"),
    *_nouns("opening", "paint size", "door, window, gate, box, suitcase, drawer"),
    *_nouns("plant", "size", "rose, tree, bush/shrub, tulip, cactus, sunflower"),
    *_nouns("clothing", "paint newness", "shirt, coat/jacket, dress, hat/cap, sweater/pullover, scarf=scarves"),
    *_nouns("device", "newness", "phone/telephone, computer, television/TV, camera, radio, printer, clock"),
]
NOUNS: dict[str, Noun] = {noun.key: noun for noun in _NOUN_LIST}

# What a thing of a group may be called without saying which it is.
GENERAL: dict[str, Noun] = {
    group: Noun(f"any {group}", forms, group, ())
    for group, forms in {
        "person": (("person", "people"), ("human", "humans")),
        "animal": (("animal", "animals"),),
        "fruit": (("piece of fruit", "pieces of fruit"),),
        "dish": (("food", ""),),
        "vegetable": (("vegetable", "vegetables"),),
        "instrument": (("musical instrument", "musical instruments"), ("instrument", "instruments")),
        "vehicle": (("vehicle", "vehicles"), ("motor vehicle", "motor vehicles")),
        "text": (("piece of writing", "pieces of writing"), ("text", "texts")),
        "furniture": (("piece of furniture", "pieces of furniture"),),
        "structure": (("structure", "structures"),),
        "plant": (("plant", "plants"),),
        "clothing": (("piece of clothing", "pieces of clothing"), ("garment", "garments")),
        "device": (("device", "devices"), ("machine", "machines")),
    }.items()
}

_SPECS = """
eat|eat eating eaten/consume consuming consumed|food|being|fruit dish vegetable|any|
cook|cook cooking cooked/prepare preparing prepared|food|person|dish vegetable|in|
slice|slice slicing sliced/cut cutting cut|food|person|fruit vegetable|any|
taste|taste tasting tasted/sample sampling sampled|food|person|dish fruit|any|
serve|serve serving served/offer offering offered|food|person|dish|any|
buy|buy buying bought/purchase purchasing purchased|trade|person|fruit vegetable clothing device text|any|sell
sell|sell selling sold|trade|person|fruit vegetable clothing device text|any|buy
repair|repair repairing repaired/fix fixing fixed/mend mending mended|work|person|vehicle cycle furniture device|any|
paint|paint painting painted|work|person|furniture structure opening cycle|any|
clean|clean cleaning cleaned/scrub scrubbing scrubbed|work|person|vehicle furniture opening instrument cycle|any|
build|build building built/construct constructing constructed|work|person|structure furniture|out|
push|push pushing pushed/shove shoving shoved|moving|person|cycle furniture vehicle|any|pull
pull|pull pulling pulled/drag dragging dragged|moving|person|cycle furniture vehicle|any|push
lift|lift lifting lifted/raise raising raised|moving|person|furniture opening|any|
carry|carry carrying carried/haul hauling hauled|moving|person|instrument furniture device plant|any|
ride|ride riding ridden|travel|person|cycle|out|
drive|drive driving driven/steer steering steered|travel|person|vehicle|out|
park|park parking parked|travel|person|vehicle cycle|out|
read|read reading read/look~through looking~through looked~through|reading|person|text|any|
write|write writing written/compose composing composed|reading|person|text|in|
tear|tear~up tearing~up torn~up/rip~up ripping~up ripped~up|reading|person|text|any|
throw|throw throwing thrown/toss tossing tossed|sport|person|ball|out|catch
catch|catch catching caught/grab grabbing grabbed|sport|being|ball|out|throw
kick|kick kicking kicked|sport|person|ball|out|
play|play playing played|music|person|instrument|any|
tune|tune tuning tuned|music|person|instrument|in|
open|open opening opened|opening|person|opening|any|close
close|close closing closed/shut shutting shut|opening|person|opening|any|open
lock|lock locking locked|opening|person|opening|any|
chase|chase chasing chased/pursue pursuing pursued/run~after running~after run~after|animals|being|being|out|
follow|follow following followed/trail trailing trailed|animals|being|being|out|
watch|watch watching watched/observe observing observed/look~at looking~at looked~at|animals|being|being|any|
feed|feed feeding fed|animals|person|animal|out|
stroke|stroke stroking stroked/pet petting petted|animals|person|animal|any|
wash|wash washing washed/bathe bathing bathed|animals|person|animal|out|
hug|hug hugging hugged/embrace embracing embraced/cuddle cuddling cuddled|people|person|person|any|
greet|greet greeting greeted/welcome welcoming welcomed|people|person|person|any|
help|help helping helped/assist assisting assisted|people|person|person|any|
guide|guide guiding guided/lead leading led|people|person|being|out|
draw|draw drawing drawn/sketch sketching sketched|art|person|plant structure being|any|
photograph|photograph photographing photographed/take~pictures~of taking~pictures~of|art|person|structure being|any|
plant|plant planting planted|garden|person|plant|out|dig up
water|water watering watered|garden|person|plant|any|
dig up|dig~up digging~up dug~up|garden|person|plant|out|plant
wear|wear wearing worn|clothes|person|clothing|any|
sew|sew sewing sewn/stitch stitching stitched|clothes|person|clothing|in|
iron|iron ironing ironed|clothes|person|clothing|in|
switch on|switch~on switching~on switched~on/turn~on turning~on turned~on|machines|person|device|in|switch off
switch off|switch~off switching~off switched~off/turn~off turning~off turned~off|machines|person|device|in|switch on
sleep|sleep sleeping/nap napping|resting|being||any|
sit|sit sitting|resting|being||any|stand
stand|stand standing|resting|being||any|sit
run|run running/sprint sprinting|motion|being||out|
walk|walk walking/stroll strolling|motion|being||out|
jump|jump jumping/leap leaping|motion|being||any|
dance|dance dancing|motion|person||any|
sing|sing singing|sound|person||any|
laugh|laugh laughing/giggle giggling|sound|person||any|cry
cry|cry crying/weep weeping|sound|person||any|laugh
"""


def _verb(line: str) -> Verb:
    key, forms, group, agents, objects, where, opposite = line.replace("being", "person animal").split("|")
    wordings = []
    for form in forms.split("/"):
        base, ing, *participle = (part.replace("~", " ") for part in form.split())
        wordings.append((base, ing, participle[0] if participle else ""))
    return Verb(key, tuple(wordings), group, tuple(agents.split()), tuple(objects.split()), where, opposite)


VERBS: dict[str, Verb] = {verb.key: verb for verb in map(_verb, _SPECS.strip().splitlines())}


def _words(group: str, entries: str) -> list[Word]:
    return [Word(entry.split("/")[0], tuple(entry.split("/")), group) for entry in entries.split(", ")]


ATTRIBUTES: dict[str, Word] = {
    word.key: word
    for word in [
        *_words("age", "young/youthful, old/elderly"),
        *_words("height", "tall, short"),
        *_words("mood", "happy/cheerful, sad/unhappy"),
        *_words("energy", "tired/weary, energetic/lively"),
        *_words("size", "big/large, small/little"),
        *_words("colour", "black, white, brown, grey"),
        *_words("paint", "red, blue, green, yellow, purple"),
        *_words("newness", "brand-new, worn-out"),
        *_words("length", "long/lengthy, brief"),
        *_words("taste", "spicy/peppery, mild"),
    ]
}
PLACES: dict[str, Word] = {
    word.key: word
    for word in [
        *_words("in", "in the kitchen, in the living room/in the lounge, in the classroom/in the schoolroom"),
        *_words("in", "in the office, in the restaurant, in the hospital/in the clinic, in the library"),
        *_words("in", "in the museum, in the hallway/in the corridor, in the basement/in the cellar"),
        *_words("out", "in the park, in the garden/in the backyard, on the beach/on the seashore"),
        *_words("out", "in the street/on the road, in the field/in the meadow, in the forest/in the woods"),
        *_words("out", "on the farm, at the market/in the marketplace, by the lake/on the lakeshore"),
        *_words("out", "on the playground, by the river/on the riverbank, in the town square"),
    ]
}
TIMES: dict[str, Word] = {
    word.key: word
    for word in [
        *_words("hour", "in the morning/early in the day, at noon/at midday, in the evening, at night/after dark"),
        *_words("season", "in winter/during the winter, in summer/during the summer"),
    ]
}
