"""Choose answers from chains of reasoning, by votes and by AoR on the same chains."""

import json
import shutil
from contextlib import ExitStack
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import ServiceError
from paperflows.tasks.annotators import Annotator, open_client
from paperflows.tasks.chains import SCORES, Pool, ScoresArtifact
from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.store import GROUPS, OUTPUTS, Artifact, new_artifact, open_artifact


class Selection(BaseModel):
    """AoR's settings besides the number of chains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = Field(ge=1, description="Chains sampled at a time while the margin is small")
    batch: int = Field(ge=1, le=20, description="Chains that the judge sees at once in local scoring")
    keep: int = Field(ge=1, le=20, description="Representatives of an answer (k)")
    threshold: float = Field(ge=0, le=10, description="Local score that a representative needs")
    margin: float = Field(ge=0, le=10, description="Lead of the best answer that ends the sampling")
    local: bool = Field(True, description="Without it representatives are drawn at random")
    compare: bool = Field(True, description="Without it the best mean local score wins")


class ChoicesArtifact(Artifact):
    """`outputs.safetensors`: dataset -> (Q,) expected correctness; `chains` -> (Q,) chains used."""

    accuracy: float
    chains: float


class AggregationArtifact(ChoicesArtifact):
    """Also `trace.jsonl`, a line a question, the judge's completions as they can be replayed where it is a language
    model (`judge.completions.jsonl`), and its counters.
    """

    counts: dict[str, float]
    examples: list[dict[str, Any]]


@cached_task(name="vote_answers")
def vote_answers(
    dataset: DatasetArtifact, pool: Pool, scores: ScoresArtifact, limit: int
) -> dict[str, ChoicesArtifact]:
    """Every vote that AoR is compared with, on the same chains and the same judge's scores; ties count as expected.

    `model_vote`, weighted by how good a chain's model is elsewhere, is there where several models wrote the chains.

    Args:
        limit: questions, the first ones.
    """
    import numpy as np
    from safetensors.numpy import load_file

    from paperflows.components.reasoning import voting
    from paperflows.components.reasoning.answers import is_correct
    from paperflows.components.reasoning.recorded import count_steps, read_questions

    questions = read_questions(read_split(dataset, "test"), **pool.filters)
    given = load_file(open_artifact(scores) / SCORES)
    place, outcomes = 0, []
    for question in questions[:limit]:
        chains = question.chains[: pool.most]
        weights = {name: values[place : place + len(chains)].tolist() for name, values in given.items()}
        place += len(question.chains)
        answers = [chain.answer for chain in chains]
        lengths = [count_steps(chain.text) for chain in chains]

        def right(answer: str, gold: str = question.gold) -> bool:
            return is_correct(answer, gold, pool.answer)

        stopped, used = voting.adaptive(answers, right)
        everything, few = float(len(chains)), float(min(pool.first, len(chains)))
        outcomes.append(
            {
                "one_chain": (sum(a is not None and right(a) for a in answers) / len(answers), 1.0),
                "majority_first": (voting.vote(answers[: pool.first], right), few),
                "majority": (voting.vote(answers, right), everything),
                "complexity": (voting.vote_of_complex(answers, lengths, right), everything),
                "weighted_vote": (voting.vote(answers, right, weights["probability"]), everything),
                "best_of_n": (voting.best_of(answers, weights["points"], right), everything),
                "adaptive": (stopped, float(used)),
                "any_right": (voting.any_right(answers, right), everything),
            }
        )
        if "prior" in weights:
            outcomes[-1]["model_vote"] = (voting.vote(answers, right, weights["prior"]), everything)
    return {name: store_choices(dataset["name"], np.array([o[name] for o in outcomes])) for name in outcomes[0]}


@cached_task(name="aggregate_answers", retries=2, retry_on=(ServiceError,))
def aggregate_answers(
    dataset: DatasetArtifact, pool: Pool, selection: Selection, scores: ScoresArtifact | None, llm: Annotator,
    limit: int, seed: int, device: str,
) -> AggregationArtifact:  # fmt: skip
    """AoR on every question: an offline judge's `scores`, or a language model as judge where they are None.

    Args:
        limit: questions, the first ones.
    """
    import numpy as np

    from paperflows.components.reasoning.aggregation import Settings, run_all
    from paperflows.components.reasoning.answers import is_correct
    from paperflows.components.reasoning.llm_judge import LLMJudge
    from paperflows.components.reasoning.recorded import read_questions, recorded_sampler

    questions = read_questions(read_split(dataset, "test"), **pool.filters)[:limit]
    settings = Settings(first=pool.first, most=pool.most, **selection.model_dump())
    work = state_folder() / "checkpoints" / current_key()
    usages: dict[str, Any] = {}
    with ExitStack() as opened, progress(f"aggregate {dataset['name']}") as report:
        sample = recorded_sampler(questions, f"dataset {dataset['name']}")
        if scores:
            local = compare = _looked_up(questions, scores)
        else:
            client = open_client(llm, "judge", device, work, opened)
            usages["judge"] = client.usage.counters
            judge = LLMJudge(client, model=llm.model, questions=[q.text for q in questions])
            local, compare = judge.local, judge.compare
        outcomes = run_all(
            range(len(questions)), settings, seed=seed, sample=sample, local=local, compare=compare, on_progress=report
        )
    right = [float(is_correct(outcomes[i].answer, q.gold, pool.answer)) for i, q in enumerate(questions)]
    counts = {
        "local_calls": float(np.mean([o.local_calls for o in outcomes.values()])),
        "compare_calls": float(np.mean([o.compare_calls for o in outcomes.values()])),
        "unread_scores": float(sum(o.unread for o in outcomes.values())),
        "one_answer": float(np.mean([o.ended == "one answer" for o in outcomes.values()])),
        "fell_back_to_majority": float(sum(o.ended.startswith("majority") for o in outcomes.values())),
    }
    counts |= {f"{who}.{name}": float(value) for who, usage in usages.items() for name, value in usage.items()}
    lines = [
        {
            "question": q.text,
            "gold": q.gold,
            "right": right[i],
            **vars(outcomes[i]),
            "margin": _finite(outcomes[i].margin),
        }
        for i, q in enumerate(questions)
    ]
    table = np.array([[r, float(outcomes[i].sampled)] for i, r in enumerate(right)])
    trace = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    said = {path.name: path.read_text(encoding="utf-8") for path in work.glob("*.completions.jsonl")}
    choices = store_choices(dataset["name"], table, {"trace.jsonl": trace, **said})
    shutil.rmtree(work, ignore_errors=True)
    return AggregationArtifact(**choices, counts=counts, examples=_examples(lines))


@cached_task(name="select_minority")
def select_minority(
    dataset: DatasetArtifact,
    chosen: AggregationArtifact,
    majority: ChoicesArtifact,
    any_right: ChoicesArtifact,
    topics: Artifact,
) -> dict[str, Any]:
    """The questions where a right answer was sampled but loses the vote: what was chosen, one half for each, and their
    topics.

    Nothing where there is no such question.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

    name = dataset["name"]
    ours, votes, there = (load_file(open_artifact(a) / OUTPUTS)[name] for a in (chosen, majority, any_right))
    some = (there > 0) & (votes == 0)
    if not some.any():
        return {}
    mine = ours[some]
    with new_artifact() as (folder, theirs):
        save_file({name: load_file(open_artifact(topics) / GROUPS)[name][some]}, folder / GROUPS)
    return {
        "topics": theirs,
        "aor": store_choices(name, np.stack([mine, np.ones_like(mine)], axis=1)),
        "half": store_choices(name, np.stack([np.full_like(mine, 0.5), np.ones_like(mine)], axis=1)),
    }


@cached_task(name="chains_used")
def chains_used(dataset: DatasetArtifact, chosen: AggregationArtifact | ChoicesArtifact) -> Artifact:
    """The chains that each question took, as outputs of a claim."""
    from safetensors.numpy import load_file, save_file

    with new_artifact() as (folder, artifact):
        save_file({dataset["name"]: load_file(open_artifact(chosen) / OUTPUTS)["chains"]}, folder / OUTPUTS)
    return artifact


def store_choices(name: str, table: Any, texts: dict[str, str] | None = None) -> ChoicesArtifact:
    """Store (Q, 2) correctness and chains of each question as outputs of a claim, and `texts` as files beside them."""
    import numpy as np
    from safetensors.numpy import save_file

    with new_artifact() as (folder, artifact):
        right, used = (np.ascontiguousarray(column) for column in table.T)
        save_file({name: right, "chains": used}, folder / OUTPUTS)
        for file, text in (texts or {}).items():
            (folder / file).write_text(text, encoding="utf-8")
    accuracy, chains = (float(column.mean()) if len(table) else 0.0 for column in (right, used))
    return ChoicesArtifact(**artifact, accuracy=accuracy, chains=chains)


def _looked_up(questions: Any, scores: ScoresArtifact) -> Any:
    from safetensors.numpy import load_file

    points = load_file(open_artifact(scores) / SCORES)["points"]
    starts, place = [], 0
    for question in questions:
        starts.append(place)
        place += len(question.chains)
    return lambda asks: [[float(points[starts[a.question] + c.number]) for c in a.chains] for a in asks]


def _finite(margin: float | None) -> float | None:
    return None if margin is None or margin == float("inf") else margin


def _examples(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few questions that needed a comparison, wrong ones first: for the report."""
    compared = sorted((line for line in lines if line["trace"]), key=lambda line: line["right"])
    return [
        {
            "question": line["question"][:300], "gold": line["gold"], "chosen": line["answer"] or "none",
            "chains": line["sampled"], "ended": line["ended"],
            "scores": ", ".join(f"{a}: {s:.1f}" for a, s in line["trace"][-1]["scores"].items()),
        }
        for line in compared[:10]
    ]  # fmt: skip
