"""Few-shot prompts: which sentences demonstrate, and how they stand before the one to be read (CodeIE, 3.2)."""

from collections.abc import Sequence
from random import Random

from paperflows.components.extraction.forms import END, Form
from paperflows.components.extraction.records import Schema, Sentence, records_of


def draw_shots(sentences: Sequence[Sentence], schema: Schema, k: int, *, seed: int) -> list[Sentence]:
    """k sentences for each type (all where there are fewer), and k without any annotation, shuffled.

    Types are those of relations where the schema has them, else of entities. A sentence can be drawn for two types and
    then stands twice.
    """
    shuffled = list(sentences)
    Random(seed).shuffle(shuffled)
    if schema.relations:
        kinds, of = schema.relations, lambda s: {kind for _, _, kind in s.relations}
    else:
        kinds, of = schema.entities, lambda s: {span.type for span in s.entities}
    drawn = [s for kind in kinds for s in [s for s in shuffled if kind in of(s)][:k]]
    drawn += [s for s in shuffled if not of(s)][:k]
    Random(0).shuffle(drawn)
    return drawn


def few_shot_prompt(form: Form, shots: Sequence[Sentence], sentence: Sentence, schema: Schema) -> str:
    """The demonstrations, each ended by the end mark, and the prompt of the sentence."""
    shown = [f"{form.prompt(s.text, schema)}{form.target(records_of(s, schema), schema)}{END}\n\n" for s in shots]
    return "".join(shown) + form.prompt(sentence.text, schema)


def without(sentences: Sequence[Sentence], held_out: Sequence[Sentence]) -> list[Sentence]:
    """The sentences that do not occur word for word among the held-out ones."""
    known = {sentence.tokens for sentence in held_out}
    return [sentence for sentence in sentences if sentence.tokens not in known]
