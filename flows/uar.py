"""UAR: four linear heads on a model's own state say when to look something up (Cheng et al., 2024).

Was a lookup asked for? Is knowledge needed at all? Does the answer change with time? Does this model know it? The
answers, in this order, make the decision; it is compared with each criterion alone, with thresholds on the answer's
probability, with neighbours among known and unknown questions, with one head trained on the decision, and with a
language model that is asked to decide, where one is named.
"""

from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.annotators import Annotator
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.closed_book import ClosedBookSettings, recall_answers
from paperflows.tasks.corpora import Prefixes, build_corpus, index_corpus
from paperflows.tasks.data import load_dataset
from paperflows.tasks.deciding import Heads, answer_as_decided, answer_by_retrieval, time_decisions, train_deciders
from paperflows.tasks.prompted_decisions import ask_whether
from paperflows.tasks.requests import Pool, build_requests
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Source(Section):
    """What is read from one source."""

    pools: tuple[Pool, ...] = Field(min_length=1, description="Texts that requests are made of")
    distractors: tuple[str, ...] = Field((), description="Datasets of texts that are searched besides the passages")


class Retrieval(Section):
    """The corpus and its reader."""

    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a sentence encoder")
    prefixes: Prefixes
    index: str = Field(pattern="^(flat|ivfpq|hnsw)$", description="flat, ivfpq or hnsw")
    passage_words: int = Field(ge=10, description="Words of a passage at most")
    passages: int | None = Field(None, ge=1, description="Passages at most, those that questions need first")
    reading: int = Field(ge=1, description="Passages that the reader sees")


class Most(Section):
    """Texts of a pool in each part, at most."""

    train: int = Field(ge=1, description="What the heads learn from")
    validation: int = Field(ge=1, description="What sets thresholds and numbers of neighbours")
    test: int = Field(ge=1, description="New requests; what asks for a lookup, or does not, is worded anew")
    unseen: int = Field(ge=1, description="Requests of kinds and splits that no head is trained on")


class Uar(FlowParameters):
    """Parameters of the flow `uar`."""

    sources: BySource[Source]
    asking: float = Field(ge=0, lt=1, description="Share of requests with words that ask for a lookup")
    mentioning: float = Field(
        ge=0, lt=1, description="Share with words that speak of the same places, as hard negatives"
    )
    most: Most
    mix: int = Field(ge=10, description="Requests of a balanced mix at most")
    model: ClosedBookSettings
    heads: Heads
    retrieval: Retrieval
    llm: Annotator = Field(description="The language model that decides by prompt, a baseline; offline: it is left out")
    timed_requests: int = Field(ge=1, description="Single requests that are timed")
    timing_repeats: int = Field(ge=2, description="Repeats of the timing")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="uar",
    title="Unified Active Retrieval for Retrieval-Augmented Generation",
    authors="Cheng et al., Findings of EMNLP 2024",
    arxiv="2406.12534",
    parameters=Uar,
)

BASELINES = {
    "intent": "the intent head alone",
    "knowledge": "the knowledge head alone",
    "time": "the time head alone",
    "unknown": "the self-aware head alone",
    "flare": "a threshold on the answer's probability (FLARE)",
    "skr": "nearest known and unknown questions (SKR)",
    "direct": "one head trained on the decision",
    "prompt": "a language model that is asked whether to",  # where there is one
}
MIXES = {
    "test": "new requests of the trained kinds, in other words",
    "unseen": "kinds of requests and texts that no head was trained on",
}


@flow(name="uar", timeout_seconds=24 * 3600, task_runner=runner())
def uar(params: Uar) -> dict[str, Any]:
    """Train the four heads, decide when to retrieve, and judge the decisions and the answers they lead to."""
    with open_run("uar", PAPER.title, params) as found:
        source, r = params.sources.of(params.data), params.retrieval
        data = [load_dataset("builtin" if p.builtin else params.data, p.dataset) for p in source.pools]
        others = [load_dataset(params.data, name) for name in source.distractors]
        requests = build_requests(list(source.pools), data, params.most.model_dump(), params.asking, params.mentioning)

        knowledge = recall_answers(requests, params.model, params.seeds[0], params.device)
        prompted = None if params.llm.kind == "offline" else ask_whether(requests, params.llm, params.device)
        deciders = [
            train_deciders(requests, knowledge, prompted, params.heads, params.mix, seed, params.device)
            for seed in params.seeds
        ]

        holders = list({d["name"]: d for d in data if "passages" in d["rows"]}.values())
        corpus = build_corpus(holders, others, r.passage_words, r.passages)
        index = index_corpus(corpus, r.encoder, r.index, r.prefixes, params.device)
        answers = answer_by_retrieval(requests, corpus, index, r.reading, params.device)
        answered = [answer_as_decided(knowledge, answers, d["decisions"]) for d in deciders]
        times = time_decisions(
            requests, knowledge, deciders[0]["heads"], params.timed_requests, params.timing_repeats, params.device
        )

        claims = [*decision_claims(deciders), *answer_claims(answered), latency_claim(times)]
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [*data, *others]}
        found.keep = {"heads": deciders[0]["heads"], "knowledge": knowledge}
        describe(found, params, requests, knowledge, prompted, corpus, deciders, answered, times)
    return found.report


def decision_claims(deciders: list[dict[str, Any]]) -> list[Claim]:
    """UAR's decisions against every other decider's, on both mixes."""
    return [
        Claim(
            id=f"beats_{name}_{mix}", statement=f"On {MIXES[mix]}, UAR decides better than {label}",
            metric="accuracy of decisions", ours=[d["right"]["uar"] for d in deciders],
            baseline=[d["right"][name] for d in deciders], baseline_name=name, datasets=[mix], statistic="mean",
        )
        for mix in deciders[0]["sizes"]
        for name, label in BASELINES.items()
        if name in deciders[0]["right"]
    ]  # fmt: skip


def answer_claims(answered: list[dict[str, Any]]) -> list[Claim]:
    """Answers with UAR in the loop against those that always read passages, and against other deciders in the loop."""
    shared: dict[str, Any] = {"baseline_name": "always", "datasets": ["answers"], "statistic": "mean"}
    others = [
        Claim(
            id=f"answers_beat_{name}", metric="answer accuracy", baseline_name=name, datasets=["answers"],
            statement=f"Answers with UAR in the loop are better than with {BASELINES[name]}", statistic="mean",
            ours=[a["right"]["uar"] for a in answered], baseline=[a["right"][name] for a in answered],
        )
        for name in ("unknown", "flare", "skr", "direct")
    ]  # fmt: skip
    return [
        *others,
        Claim(
            id="answers_no_worse", metric="answer accuracy", margin=-0.01, **shared,
            statement="Answers with UAR in the loop are at most a point worse than with every question looked up",
            ours=[a["right"]["uar"] for a in answered], baseline=[a["right"]["always"] for a in answered],
        ),
        Claim(
            id="fewer_retrievals", metric="retrievals a question", margin=0.8, compare="ratio", lower_is_better=True,
            statement="UAR looks up less than 80 % of the questions", **shared,
            ours=[a["retrieved"]["uar"] for a in answered], baseline=[a["retrieved"]["always"] for a in answered],
        ),
    ]  # fmt: skip


def latency_claim(times: dict[str, Any]) -> Claim:
    """What a decision adds to the pass of the model."""
    return Claim(
        id="decision_is_free", statement="The heads take less than 1 % of the encoder's pass over one request",
        metric="median seconds", ours=[times["heads"]], baseline=[times["encoder"]], baseline_name="encoder",
        datasets=["seconds"], statistic="median", compare="ratio", margin=0.01, lower_is_better=True,
    )  # fmt: skip


def describe(
    found: Any, params: Uar, requests: Any, knowledge: Any, prompted: Any, corpus: Any, deciders: Any, answered: Any,
    times: Any,
) -> None:  # fmt: skip
    """Metrics, plots and notes of the report."""
    for name in deciders[0]["accuracy"]:
        found.metrics[f"accuracy.{name}"] = mean([d["accuracy"][name] for d in deciders])
    for name in answered[0]["measures"]:
        found.metrics[f"answers.{name}"] = mean([a["measures"][name] for a in answered])
    found.metrics |= {f"model.{name}": value for name, value in knowledge["measures"].items()}
    found.metrics |= {f"requests.{part}": float(count) for part, count in requests["counts"].items()}
    found.metrics |= {f"mix.{name}": float(size) for name, size in deciders[0]["sizes"].items()}
    found.metrics |= {"passages": float(corpus["passages"]), "decision.milliseconds": times["milliseconds"]}
    found.metrics |= prompted["measures"] if prompted else {}
    found.model = f"{params.model.model} with a memory" if params.model.kind == "memory" else params.model.model
    found.notes = [
        "The model that answers from memory has read 19 in 20 questions of some topics and 1 in 20 of the others; a "
        "question counts as known when this model answers it right. Its answers, not another's, label the "
        "self-aware head. Topics are clusters of the questions' states, so that knowing is easier to tell from a "
        "state here than with a language model."
        if params.model.kind == "memory"
        else "A question counts as known when the language model's own greedy answer holds a gold answer.",
        "One memory, of the first seed, is in all: intervals hold the randomness of heads and examples, not of what a "
        "model happens to know."
        if params.model.kind == "memory"
        else "Where it retrieves, no language model reads: the reader below answers, from passages.",
        *(
            f"No decision is judged on {said}: one side of it has no request."
            for mix, said in MIXES.items()
            if mix not in deciders[0]["sizes"]
        ),
        "Half of each mix wants a retrieval. The head `direct` sees the same requests, labels and steps as the four.",
        "Wordings that ask for a lookup, or speak of a place to look without asking, differ between training and test; "
        "final punctuation is removed.",
        "No language model was asked to decide by prompt: name one with llm.kind and llm.model."
        if prompted is None
        else f"{params.llm.model} was asked to decide by prompt; it judges what {found.model} knows by what it knows "
        "itself, which is the paper's baseline only where the two are one model.",
        "The reader says the sentence nearest to the question; right means that it holds a gold answer.",
    ]
    found.children = [
        (f"heads-seed{seed}", {"seed": seed}, d["history"]) for seed, d in zip(params.seeds, deciders, strict=True)
    ]
    compared = ["uar", *(name for name in BASELINES if name in deciders[0]["right"]), "always"]
    bars = {
        mix: {name: [d["accuracy"][f"{name}.{mix}"] for d in deciders] for name in compared}
        for mix in deciders[0]["sizes"]
    }
    points = {
        name: [(a["measures"][f"retrieved.{name}"], a["measures"][f"right.{name}"]) for a in answered]
        for name in (*compared, "never")
    }
    found.draw["decisions.png"] = lambda path: plots.draw_bars(bars, path, ylabel="accuracy of decisions")
    found.draw["answers.png"] = lambda path: plots.draw_lines(
        points, path, xlabel="share of questions looked up", ylabel="answer accuracy"
    )


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)
