"""LLatrieval: retrieve, let a judge select and verify, ask for what is missing, retrieve again (Li et al., 2024).

Answers with citations stand on five passages of a large corpus, chosen by BM25, by vectors, by a reranker, by one round
of the method or by as many as its verifier asks for. Offline, selector and verifier are a cross-encoder trained in the
flow on other passages; with an endpoint they, the missing-information questions and the answers are a language model's.
"""

from typing import Any

from prefect import flow
from pydantic import Field

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.annotators import Annotator
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.corpora import Prefixes, build_corpus, index_corpus
from paperflows.tasks.data import load_dataset
from paperflows.tasks.questions import QuestionSet, gather_questions
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.support import SupportTraining, train_support
from paperflows.tasks.verified_retrieval import KNOWN, METHODS, Rounds, compare_retrieval


class Source(Section):
    """What is read from one source."""

    questions: tuple[QuestionSet, ...] = Field(min_length=1, description="Questions, and with them their passages")
    distractors: tuple[str, ...] = Field((), description="Datasets of texts that are searched besides the passages")


class Corpus(Section):
    """The passages and their index."""

    encoder: str = Field(description="minilm, a folder or a Hugging Face id of a sentence encoder")
    prefixes: Prefixes
    index: str = Field(pattern="^(flat|ivfpq|hnsw)$", description="flat, ivfpq or hnsw")
    passage_words: int = Field(ge=10, description="Words of a passage at most")
    passages: int | None = Field(None, ge=1, description="Passages at most, those that questions need first")


class Llatrieval(FlowParameters):
    """Parameters of the flow `llatrieval`."""

    sources: BySource[Source]
    corpus: Corpus
    most_train: int = Field(ge=1, description="Training questions of a kind at most")
    most_test: int = Field(ge=1, description="Evaluated questions of a kind at most")
    support: SupportTraining
    rounds: Rounds
    llm: Annotator = Field(description="offline: the trained cross-encoder; else the language model that judges")
    citation_judge: str = Field(
        description="known: the support that the data names; else a folder or Hugging Face id of an NLI classifier"
    )
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="llatrieval",
    title="LLatrieval: LLM-Verified Retrieval for Verifiable Generation",
    authors="Li et al., NAACL 2024",
    arxiv="2311.07838",
    parameters=Llatrieval,
)

MEASURES = {"answer_recall": "more of the answers", "citation_recall": "more statements that their citations support"}
BASELINES = {
    "dense": "one-shot dense retrieval",
    "bm25": "BM25",
    "hybrid": "BM25 and dense retrieval together",
    "rerank": "dense retrieval with the reranker",
    "single": "one round of select and verify",
}


@flow(name="llatrieval", timeout_seconds=24 * 3600, task_runner=runner())
def llatrieval(params: Llatrieval) -> dict[str, Any]:
    """Retrieve until verified, and judge answers and citations against one-shot retrieval at the same budget."""
    with open_run("llatrieval", PAPER.title, params) as found:
        source, c = params.sources.of(params.data), params.corpus
        sets = list(source.questions)
        data = [load_dataset("builtin" if s.builtin else params.data, s.dataset, ["question answering"]) for s in sets]
        others = [load_dataset(params.data, name) for name in source.distractors]
        corpus = build_corpus(data, others, c.passage_words, c.passages)
        index = index_corpus(corpus, c.encoder, c.index, c.prefixes, params.device)
        questions = gather_questions(sets, data, corpus, params.most_train, params.most_test)

        supports = [
            train_support(questions, corpus, index, params.support, seed, params.device) for seed in params.seeds
        ]
        compared = [
            compare_retrieval(
                questions, corpus, index, support, params.rounds, params.llm, params.citation_judge, seed, params.device
            )
            for seed, support in zip(params.seeds, supports, strict=True)
        ]

        claims = retrieval_claims(compared)
        if params.citation_judge != KNOWN:  # the known support cannot accept another question's citations
            claims.append(control_claim(compared))
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {d["name"]: d["content"] for d in [*data, *others]}
        found.keep = {"trace": compared[0]["trace"], "support": supports[0]}
        describe(found, params, corpus, questions, supports, compared)
    return found.report


def retrieval_claims(compared: list[dict[str, Any]]) -> list[Claim]:
    """Verified retrieval against every other way at the same budget of passages."""
    return [
        Claim(
            id=f"{measure}_beats_{name}", statement=f"Verified retrieval gives {what} than {label}",
            metric=measure.replace("_", " "), ours=[one["outputs"]["verified"] for one in compared],
            baseline=[one["outputs"][name] for one in compared], baseline_name=name, datasets=[measure],
            statistic="mean",
        )
        for measure, what in MEASURES.items()
        for name, label in BASELINES.items()
    ]  # fmt: skip


def control_claim(compared: list[dict[str, Any]]) -> Claim:
    """The citation measure must not be satisfied by any citation."""
    return Claim(
        id="shuffled_citations",
        statement="With another question's citations, less than 5 % of the statements are supported",
        metric="citation recall", ours=[one["shuffled"] for one in compared],
        baseline=[one["zero"] for one in compared], baseline_name="none", datasets=["citation_recall"],
        statistic="mean", margin=0.05, lower_is_better=True,
    )  # fmt: skip


def describe(found: Any, params: Llatrieval, corpus: Any, questions: Any, supports: Any, compared: Any) -> None:
    """Metrics, plots, examples and notes of the report."""
    for name in compared[0]["measures"]:
        found.metrics[name] = mean([one["measures"][name] for one in compared])
    for place, output in enumerate(("belongs", "answers")):
        found.metrics[f"threshold.{output}"] = mean([s["thresholds"][place] for s in supports])
    found.metrics |= {"passages": float(corpus["passages"]), "questions.left_out": float(questions["left_out"])}
    found.metrics |= {f"questions.{kind}": float(count) for kind, count in questions["kinds"].items()}
    found.model = f"{params.corpus.encoder} for vectors, " + (
        f"a cross-encoder from {params.support.model} as judge" if params.llm.kind == "offline" else params.llm.model
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in questions["kinds"].items())
    found.notes = [
        f"Questions: {kinds}. chain and fan need a passage that names what the others are about; every method answers "
        "from its passages with the same reader.",
        "A statement is supported when its cited passages hold the answer that it states and every link, by the known "
        "support of the data, not by a model."
        if params.citation_judge == KNOWN
        else f"A statement is supported when {params.citation_judge} finds that its cited passages entail it.",
        "The reranker is an output of the cross-encoder that was trained on all supporting passages of a question.",
        "Offline the verifier asks for one answer to each part: a question without a link whose answers stand in "
        "several passages is verified by the first (`verifier.precision.several`), and gets no second round.",
        "citation_recall.shuffled is that of another question's citations. The known support cannot accept those; "
        "where citation_judge names a model a claim asks whether it does.",
        "No passage that supports an evaluated question was read in training.",
    ]
    found.tables["Questions that took more than one round"] = compared[0]["examples"]
    found.children = [(s["name"], {"seed": seed}, s["history"]) for seed, s in zip(params.seeds, supports, strict=True)]
    for measure in (*MEASURES, "passage_recall"):
        groups = {
            kind: {m: [one["measures"][f"{measure}.{m}.{kind}"] for one in compared] for m in METHODS}
            for kind in questions["kinds"]
        }
        label = measure.replace("_", " ")
        found.draw[f"{measure}.png"] = lambda path, groups=groups, label=label: plots.draw_bars(
            groups, path, ylabel=label
        )


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)
