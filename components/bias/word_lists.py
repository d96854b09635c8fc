"""Words that name groups, by sensitive attribute: what counterfactual augmentation exchanges or puts in.

A line `neutral: a b c` says that a, b and c name different groups and that `neutral` names none of them ("-": the word
is an adjective and is left out). A star marks the form of a pronoun that stands alone (`saw her`, `it is his`), where
the other use of the same word stands before a noun (`her book`). Descriptors stand before a noun for people. Written
for this project; neither complete nor a judgement.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WordList:
    """The words of one attribute.

    Args:
        swaps: word -> words of the other groups; a pronoun that stands alone has a star, as `her*`.
        neutral: word -> what names no group; "" leaves it out: the word is an adjective.
        descriptors: adjectives of different groups, to stand before a noun for people.
    """

    descriptors: tuple[str, ...]
    swaps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    neutral: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> frozenset[str]:
        """Every single word that an augmentation with this list may put into a sentence."""
        phrases = [*self.descriptors, *self.swaps]
        return frozenset(word.rstrip("*") for phrase in phrases for word in phrase.split())


def without_words(words: WordList, hidden: frozenset[str]) -> WordList:
    """The list without swaps and descriptors that have a word of `hidden` in them."""

    def kept(phrase: str) -> bool:
        return not hidden & set(phrase.replace("*", "").split())

    swaps = {w: tuple(filter(kept, others)) for w, others in words.swaps.items() if kept(w)}
    swaps = {word: others for word, others in swaps.items() if others}
    return WordList(tuple(filter(kept, words.descriptors)), swaps, {word: words.neutral[word] for word in swaps})


_PEOPLE = """
people person persons man men woman women boy boys girl girls child children kid kids guy guys lady ladies student
students worker workers player players friend friends neighbor neighbors doctor doctors teacher teachers family families
couple crowd group officer officers soldier soldiers singer dancer driver customer customers farmer nurse lawyer waiter
tourist tourists athlete artist musician firefighter mechanic tailor sailor cop guest guests owner leader leaders
employee employees patient patients visitor visitors voter voters citizen citizens
"""
PEOPLE = frozenset(_PEOPLE.split())
"""Nouns before which a descriptor can stand."""

_NO_NOUN = """
a an the this that these those my your his her its our their some any each every all both another no me you him us them
it he she they we i who whom whose which what when where why how if because than then while as so too very not never
always again away and or but nor yet to in into on onto at by for from with without of off up down out over under about
above after before behind below between during near through until upon around across against along inside is are was
were be been being am has have had does did do will would can could may might must shall should there here now today
yesterday tomorrow
"""
NO_NOUN = frozenset(_NO_NOUN.split())
"""Words that begin no noun phrase without a determiner: before one of them, a pronoun or an adjective stands alone."""


def _word_list(descriptors: str, groups: str) -> WordList:
    swaps: dict[str, tuple[str, ...]] = {}
    neutral: dict[str, str] = {}
    for line in filter(None, map(str.strip, groups.strip().split("\n"))):
        name, _, rest = line.partition(": ")
        members = [word.replace("_", " ") for word in rest.split()]
        for word in members:
            swaps.setdefault(word, tuple(other for other in members if other != word))
            neutral.setdefault(word, "" if name == "-" else name.replace("_", " "))
    return WordList(tuple(d.replace("_", " ") for d in descriptors.split()), swaps, neutral)


WORD_LISTS: dict[str, WordList] = {
    "age": _word_list(
        "young old elderly teenage middle-aged aged adult little aging juvenile",
        """
        -: young old elderly teenage middle-aged aged
        person: teenager adult senior child
        people: teenagers adults seniors children kids
        man: boy grandfather
        woman: girl grandmother
        """,
    ),
    "gender": _word_list(
        "male female",
        """
        they: he she
        their: his her
        them: him her*
        theirs: his* hers
        themselves: himself herself
        person: man woman
        people: men women
        child: boy girl
        children: boys girls
        person: guy lady
        people: guys ladies
        person: gentleman madam
        parent: father mother
        parents: fathers mothers
        parent: dad mom
        sibling: brother sister
        siblings: brothers sisters
        child: son daughter
        children: sons daughters
        spouse: husband wife
        relative: uncle aunt
        grandparent: grandfather grandmother
        grandparent: grandpa grandma
        performer: actor actress
        server: waiter waitress
        officer: policeman policewoman
        ruler: king queen
        """,
    ),
    "physical-appearance": _word_list(
        "fat thin skinny overweight slim tall short ugly beautiful handsome obese fit muscular pretty heavy petite",
        """
        -: fat thin skinny overweight slim obese fit
        -: tall short
        -: ugly beautiful handsome pretty
        -: blonde brunette bald
        """,
    ),
    "race": _word_list(
        "black white asian african european latino hispanic american mexican chinese caucasian arab indian",
        """
        -: black white asian hispanic latino caucasian
        -: african european american mexican chinese indian
        people: blacks whites asians latinos
        """,
    ),
    "religion": _word_list(
        "muslim christian jewish hindu buddhist catholic atheist protestant mormon sikh",
        """
        religious: muslim christian jewish hindu buddhist catholic atheist mormon
        people: muslims christians jews hindus buddhists catholics atheists mormons
        place_of_worship: mosque church synagogue temple
        leader: imam priest rabbi monk
        scripture: koran bible torah
        holiday: christmas ramadan hanukkah easter
        """,
    ),
    "socioeconomic": _word_list(
        "poor rich wealthy homeless unemployed privileged working-class upper-class low-income affluent",
        """
        -: poor rich wealthy affluent needy
        people: poor_people rich_people
        worker: janitor doctor cashier lawyer cleaner banker
        workers: janitors doctors cashiers lawyers cleaners bankers
        house: shack mansion trailer apartment villa
        area: ghetto suburb slum
        """,
    ),
}
