"""One strict row model a task type: types and field names only; `constraints` relates fields to one another."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(pattern=r"\S")]
Label = Annotated[str, StringConstraints(pattern=r"\S")] | int
Index = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Row(BaseModel):
    """Strict (no 0 for "0"); a field that a model does not name is kept and reported, not refused."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    id: str | int | None = None


class Classification(_Row):
    """One text, or two, with one label."""

    text: Text
    text_pair: Text | None = None
    label: Label
    topic: str | None = None


class Correctness(_Row):
    """A text pair and whether each of several classifiers was right about it (1) or not (0)."""

    text: Text
    text_pair: Text | None = None
    correct: (
        bool
        | Annotated[int, Field(ge=0, le=1)]
        | Annotated[list[Annotated[int, Field(ge=0, le=1)]], Field(min_length=1)]
    )


class PairRegression(_Row):
    """Two texts with a real-valued similarity."""

    text: Text
    text_pair: Text
    score: Finite
    entailment: str | None = None


class Tagging(_Row):
    """One tag a token; with a dependency tree, the head's number from 1 (0 = root) and the relation to it."""

    tokens: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)]
    tags: list[Text]
    heads: list[Index] | None = None
    deprels: list[Text] | None = None


class TokenSpan(BaseModel):
    """Tokens start .. end-1 are an entity."""

    model_config = ConfigDict(strict=True, extra="allow")
    start: Index
    end: Index
    type: Text


class TypedLink(BaseModel):
    """Entity number `head` stands in relation `type` to entity number `tail`."""

    model_config = ConfigDict(strict=True, extra="allow")
    head: Index
    tail: Index
    type: Text


class Relations(_Row):
    """Tokens with entity spans and relations between them."""

    tokens: Annotated[list[str], Field(min_length=1)]
    entities: list[TokenSpan]
    relations: list[TypedLink]


class LinkedMention(BaseModel):
    """An entity of a knowledge base and the tokens that name it."""

    model_config = ConfigDict(strict=True, extra="allow")
    name: Text
    entity: Text
    mention: Annotated[list[Index], Field(min_length=1)]


class RelationClassification(_Row):
    """Which relation do two entities of a sentence stand in?"""

    tokens: Annotated[list[str], Field(min_length=1)]
    head: LinkedMention
    tail: LinkedMention
    label: Label


class AspectSentiment(_Row):
    """The sentiment towards one aspect, `text[from:to]`. Rows of one sentence share its id."""

    text: Text
    aspect: Text
    start: Index = Field(alias="from")
    to: Index
    label: Label


class QuestionAnswering(_Row):
    """A question with its accepted answers (none: unanswerable) and the ids of the passages that hold them."""

    question: Text
    answers: list[Text]
    passages: Annotated[list[str | int], Field(min_length=1)] | None = None
    topic: str | None = None
    relation: str | None = None


class Passage(_Row):
    """A passage that questions refer to."""

    id: str | int
    text: Text
    title: str | None = None


class Reasoning(_Row):
    """A word problem with a worked solution and the final answer."""

    question: Text
    solution: Text
    answer: Text


class Chain(BaseModel):
    """One model's reasoning; `answer` is None where none could be read off."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: Text
    style: str | None = None
    temperature: Finite | None = None
    text: str
    answer: str | None


class ReasoningChains(_Row):
    """A question and recorded attempts of language models at it."""

    question: Text
    context: str | None = None
    answer: Text
    chains: Annotated[list[Chain], Field(min_length=1)]


class KnowledgeTriple(_Row):
    """One fact between two entities, by their ids."""

    head: str | int
    relation: Text
    tail: str | int


class Entity(_Row):
    """An entity that facts or mentions refer to."""

    id: str | int
    name: Text
    description: str | None = None
    literal: bool | None = None


class Mention(BaseModel):
    """`text[start:end]` names the entity."""

    model_config = ConfigDict(strict=True, extra="allow")
    start: Index
    end: Index
    entity: str | int


class TextGraph(_Row):
    """A text, the entities it mentions and the facts it states."""

    text: Text
    mentions: list[Mention]
    triples: list[Annotated[list[str], Field(min_length=3, max_length=3)]]
    category: str | None = None
    targets: list[Index] | None = None
    settings: list[str] | None = None


class MinimalPair(_Row):
    """Two sentences that differ in one property; rows with the same `pair` belong together."""

    pair: int
    candidate: Text
    reference: Text
    scores: dict[str, Finite] | None = None


class ParaphraseSet(_Row):
    """Captions of one picture: any two of them paraphrase each other."""

    captions: Annotated[list[Text], Field(min_length=2)]


class Image(_Row):
    """An image file inside the dataset's folder with its description."""

    image: Text
    text: Text
    digit: int | None = None
    group: str | None = None
    keywords: list[str] | None = None
    base: str | None = None
    tone: str | None = None


class Speech(_Row):
    """A sound file inside the dataset's folder with its transcript."""

    audio: Text
    text: Text
    digit: int | None = None
    speaker: str | None = None
    take: int | None = None


class Music(_Row):
    """A melody in ABC notation."""

    abc: Text
    title: str
    meter: str
    key: str
    unit: str | None = None
    collection: str | None = None


class Prompt(_Row):
    """A prompt, with recorded answers of models and their scores where there are some, by the models' names."""

    prompt: Text
    dimension: str | None = None
    subcomponent: str | None = None
    answers: dict[str, str] | None = None
    scores: dict[str, int] | None = None


class Instruction(_Row):
    """An instruction with its input (may be empty) and output."""

    instruction: Text
    input: str
    output: Text


class MultipleChoice(_Row):
    """A text with a gap and the choices for it; `answer` counts from 0."""

    text: Text
    choices: Annotated[list[Text], Field(min_length=2)]
    answer: Index


class PlainText(_Row):
    """A text, with its German translation where there is one."""

    text: Text
    de: Text | None = None
