"""Every way to retrieve, judged by the answers it leads to."""

import json
from contextlib import ExitStack
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import ServiceError
from paperflows.tasks.annotators import Annotator, open_client
from paperflows.tasks.corpora import CorpusArtifact, IndexArtifact, read_passages, shown
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.questions import QuestionsArtifact, read_questions
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact
from paperflows.tasks.support import SupportArtifact, similarity

KNOWN = "known"
METHODS = ("bm25", "dense", "hybrid", "rerank", "single", "verified")


class Rounds(BaseModel):
    """How much is retrieved, shown and asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: int = Field(ge=1, le=20, description="Passages an answer may stand on (k)")
    pool: int = Field(ge=1, description="Candidates of a round (N)")
    window: int = Field(ge=1, description="Candidates that the judge sees at once")
    rounds: int = Field(ge=1, le=20, description="Retrievals of a question at most (T)")
    looks: int = Field(ge=1, description="Passages of a window that are scored for a part, the nearest ones")


@cached_task(
    name="compare_retrieval", retries=2, retry_on=(ServiceError,), task_run_name="compare_retrieval-seed{seed}"
)
def compare_retrieval(
    questions: QuestionsArtifact, corpus: CorpusArtifact, index: IndexArtifact, support: SupportArtifact,
    rounds: Rounds, llm: Annotator, citation_judge: str, seed: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Retrieve by every method at the same budget of passages, answer from each, and measure.

    Args:
        llm: offline: the trained cross-encoder selects, verifies and answers; else this language model does.
        citation_judge: KNOWN, or an NLI model.

    Returns:
        `outputs`: method -> artifact with answer_recall, citation_recall, citation_precision and passage_recall (Q,);
        `shuffled`: the control; `measures`: flat name -> number; `trace`: artifact with a line a question.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.retrieval import citations
    from paperflows.components.retrieval.verified import Settings, retrieve_verified

    rows, passages = read_questions(questions, "test"), read_passages(corpus)
    texts = [row["text"] for row in rows]
    work = state_folder() / "checkpoints" / current_key()
    settings = rounds.model_dump(include={"keep", "pool", "window"})
    with ExitStack() as opened, progress("retrieve") as report:
        encoded, cosine, search = similarity(index, device)
        reader = _open_reader(texts, passages, cosine, support, rounds, device)
        judge: Any = reader
        usage: Any = {}
        if llm.kind != "offline":
            from paperflows.components.retrieval.llm_reader import LLMReader

            client = open_client(llm, "judge", device, work, opened)
            judge = LLMReader(client, model=llm.model, questions=texts, passages=[shown(p) for p in passages])
            usage = client.usage.counters
        chosen = _one_shot(texts, index, search, reader, rounds)
        scored = reader.scored
        single = retrieve_verified(texts, search, judge, Settings(**settings, rounds=1))
        verified = retrieve_verified(
            texts, search, judge, Settings(**settings, rounds=rounds.rounds), on_progress=report
        )
        chosen |= {"single": [o.chosen for o in single], "verified": [o.chosen for o in verified]}
        answers = {method: _answers(list(enumerate(sets)), judge, passages, encoded) for method, sets in chosen.items()}
    golds = _golds(rows)
    control = list(citations.shuffled(dict(enumerate(answers["verified"]))).values())
    supports = _supports(citation_judge, golds, [*answers.values(), control], passages, device)
    kinds = np.array([row["kind"] for row in rows])
    found: dict[str, Any] = {"outputs": {}, "measures": _verifier_measures(verified, golds, kinds)}
    for method, sets in chosen.items():
        scores = _scores(sets, answers[method], golds, supports, rounds.keep)
        with new_artifact() as (folder, artifact):
            save_file(scores, folder / OUTPUTS)
        found["outputs"][method] = artifact
        for name, values in scores.items():
            found["measures"][f"{name}.{method}"] = float(values.mean())
            for kind in np.unique(kinds):
                found["measures"][f"{name}.{method}.{kind}"] = float(values[kinds == kind].mean())
    wrong = np.array([citations.citation_recall(*one) for one in zip(control, supports, strict=True)])
    found["measures"]["citation_recall.shuffled"] = float(wrong.mean())
    with new_artifact() as (folder, found["shuffled"]):
        save_file({"citation_recall": wrong}, folder / OUTPUTS)
    with new_artifact() as (folder, found["zero"]):
        save_file({"citation_recall": np.zeros_like(wrong)}, folder / OUTPUTS)
    found["measures"] |= {f"llm.{name}": float(value) for name, value in usage.items()}
    found["measures"] |= {"pairs_scored.one_shot": float(scored), "pairs_scored": float(reader.scored)}
    lines = [
        {
            "question": row["text"], "kind": row["kind"], "gold": row["answers"], "rounds": outcome.rounds,
            "verified": outcome.verified, "trace": outcome.trace,
            "passages": {str(place): shown(passages[place]) for place in outcome.chosen},
            "statements": [{"text": s.text, "citations": list(s.citations)} for s in said],
        }
        for row, outcome, said in zip(rows, verified, answers["verified"], strict=True)
    ]  # fmt: skip
    with new_artifact() as (folder, found["trace"]):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "trace.jsonl").write_text(text, encoding="utf-8")
    found["examples"] = _examples(lines)
    return found


def _open_reader(texts: Any, passages: Any, cosine: Any, support: SupportArtifact, rounds: Rounds, device: str) -> Any:
    import numpy as np

    from paperflows.components.retrieval.cross_encoder import load_cross_encoder
    from paperflows.components.retrieval.names import TitleLinks
    from paperflows.components.retrieval.support import SupportReader

    model = load_cross_encoder(open_artifact(support), device=device)

    def score(parts: Any, places: Any) -> Any:
        logits = model.score(parts, [shown(passages[place]) for place in places], cosine(parts, places))
        return 1 / (1 + np.exp(-logits))

    links = TitleLinks(passage["title"] for passage in passages)
    return SupportReader(
        texts, passages, score, cosine, links=links, looks=rounds.looks,
        thresholds=(support["thresholds"][0], support["thresholds"][1]), most_parts=max(1, rounds.keep - 1),
    )  # fmt: skip


def _one_shot(texts: list[str], index: IndexArtifact, search: Any, reader: Any, rounds: Rounds) -> dict[str, Any]:
    """Passages by BM25, by vectors, by both, and by vectors reranked with the same cross-encoder."""
    import numpy as np

    from paperflows.components.retrieval.bm25 import open_bm25
    from paperflows.components.retrieval.cross_encoder import rerank
    from paperflows.components.retrieval.fusion import reciprocal_rank
    from paperflows.components.retrieval.support import OUTPUTS as LABELS

    found = search(texts, rounds.pool)
    dense = np.full((len(found), max(map(len, found))), -1)
    for row, places in zip(dense, found, strict=True):
        row[: len(places)] = places
    words = open_bm25(open_artifact(index) / "bm25").search(texts, rounds.pool)[1]
    pairs = [(text, max(place, 0)) for text, row in zip(texts, dense, strict=True) for place in row]  # -1 comes last
    chance = reader.probabilities(pairs)
    helps = chance[:, LABELS.index("helps")].reshape(dense.shape)
    reranked = rerank(helps, dense, rounds.keep)[1]
    both = reciprocal_rank([dense, words], rounds.keep)[1]
    rankings = {"bm25": words, "dense": dense, "hybrid": both, "rerank": reranked}
    return {
        name: [[place for place in row[: rounds.keep].tolist() if place >= 0] for row in ranking]
        for name, ranking in rankings.items()
    }


def _answers(sets: Any, judge: Any, passages: Any, encoded: Any) -> Any:
    if hasattr(judge, "answer"):
        return judge.answer(sets)
    from paperflows.components.retrieval.answering import answer_from

    return answer_from(sets, judge, passages, encoded)


def _golds(rows: list[dict[str, Any]]) -> list[Any]:
    from paperflows.components.retrieval.citations import Gold

    return [
        Gold(
            tuple(map(tuple, row["answers"])),
            tuple(map(frozenset, row["holders"])),
            tuple(map(frozenset, row["links"])),
        )
        for row in rows
    ]


def _supports(judge: str, golds: Any, answers: Any, passages: Any, device: str) -> list[Any]:
    """For each question, whether citations support a statement: by the known support, or by an NLI model."""
    from paperflows.components.retrieval.citations import known_support

    if judge == KNOWN:
        return [known_support(gold) for gold in golds]
    from paperflows.components.retrieval.entailment import EntailmentJudge, entailed_support

    said = [statements for method in answers for statements in method]
    model = EntailmentJudge(judge, device=device)
    return [entailed_support(said, lambda place: shown(passages[place]), model)] * len(golds)


def _scores(sets: Any, answers: Any, golds: Any, supports: Any, keep: int) -> dict[str, Any]:
    """Measure -> (Q,) of the passages and the answers of one method."""
    import numpy as np

    from paperflows.components.retrieval import citations, metrics

    def measured(measure: Any, what: Any, by: Any = golds) -> Any:
        return np.array([float(measure(one, known)) for one, known in zip(what, by, strict=True)])

    ranking = np.array([[*places, *[-1] * (keep - len(places))] for places in sets])
    relevant = [frozenset().union(*gold.holders, *gold.links) for gold in golds]
    return {
        "answer_recall": measured(citations.answer_recall, answers),
        "citation_recall": measured(citations.citation_recall, answers, supports),
        "citation_precision": measured(citations.citation_precision, answers, supports),
        "sufficient": measured(citations.is_sufficient, sets),
        "passage_recall": metrics.recall(ranking, relevant, keep),
        "ndcg": metrics.ndcg(ranking, relevant, keep),
        "mrr": metrics.mean_reciprocal_rank(ranking, relevant, keep),
    }


def _verifier_measures(outcomes: Any, golds: Any, kinds: Any) -> dict[str, float]:
    """Precision and recall of every verdict against the known support, by kind too, and what the rounds cost."""
    import numpy as np

    from paperflows.components.retrieval.citations import is_sufficient

    calls = [
        (step["verified"], is_sufficient(step["chosen"], gold), kind)
        for outcome, gold, kind in zip(outcomes, golds, kinds, strict=True)
        for step in outcome.trace
    ]
    said, true = np.array([call[:2] for call in calls]).T
    of_kind = np.array([kind for *_, kind in calls])
    groups = {"": np.ones(len(calls), bool)} | {f".{kind}": of_kind == kind for kind in np.unique(kinds)}
    quality: dict[str, float] = {}
    for name, some in groups.items():
        right = float((said & true & some).sum())
        quality |= {
            f"verifier.precision{name}": right / max(1, int((said & some).sum())),
            f"verifier.recall{name}": right / max(1, int((true & some).sum())),
        }
    return quality | {
        "verifier.sufficient": float(true.mean()),
        "verifier.calls": float(len(calls) / len(golds)),
        "rounds": float(np.mean([o.rounds for o in outcomes])),
        "judge_calls": float(np.mean([o.calls for o in outcomes])),
        "verified": float(np.mean([o.verified for o in outcomes])),
    }


def _examples(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few questions that took more than one round, for the report's table."""
    return [
        {
            "question": line["question"],
            "rounds": line["rounds"],
            "asked": "; ".join(q for step in line["trace"][1:] for q in step["queries"])[:300],
            "said": " ".join(s["text"] + "".join(f" [{c}]" for c in s["citations"]) for s in line["statements"])[:400],
            "gold": ", ".join(wordings[0] for wordings in line["gold"]),
        }
        for line in lines
        if line["rounds"] > 1
    ][:8]
