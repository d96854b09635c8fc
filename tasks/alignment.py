"""The benchmark: answers of models under test, their scores, human review, and the figures by model."""

import shutil
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any

from paperflows.components.errors import InputError, ServiceError
from paperflows.tasks.annotators import Annotator, open_client
from paperflows.tasks.data import DatasetArtifact, read_rows, read_split
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.progress import progress
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact

SHARD = 50  # answers between two checkpoints
DIMENSIONS = ("Fairness", "Safety", "Morality", "Legality", "Data protection")


class AnswersArtifact(Artifact):
    """`answers.jsonl`: id, model, dimension, subcomponent, prompt, answer; and what asking took."""

    model: str
    usage: dict[str, float]


@cached_task(name="collect_answers", task_run_name="collect_answers-{name}", retries=2, retry_on=(ServiceError,))
def collect_answers(
    prompts: DatasetArtifact, name: str, source: Annotator | None, limit: int, max_tokens: int, temperature: float,
    most_failed: float, device: str,
) -> AnswersArtifact:  # fmt: skip
    """Answers of one model to the prompts of the test split; a killed run goes on where it was.

    Args:
        source: who answers; None takes the answers that the dataset records under `name`.
        limit: prompts, the first ones.
        most_failed: share of the requests that may fail, as where a provider filters prompts; those have no answer.

    Raises:
        InputError: a prompt has no dimension of the benchmark, or no recorded answer.
        ServiceError: the endpoint cannot be reached, or more requests failed than may.
    """
    from paperflows.components.alignment.scale import scale_of
    from paperflows.components.data.jsonl import write_jsonl

    rows = read_split(prompts, "test")[:limit]
    for row in rows:
        scale_of(row.get("dimension") or "")
    usage: dict[str, float] = {}
    if source is None:
        answers = [{"answer": _recorded(row, name, prompts["name"]), "error": ""} for row in rows]
    else:
        answers, usage = _asked(rows, source, max_tokens, temperature, most_failed, device)
    with new_artifact() as (folder, artifact):
        kept = [
            {
                "id": str(row.get("id", place)), "model": name, "dimension": row["dimension"],
                "subcomponent": row.get("subcomponent") or "", "prompt": row["prompt"], **answer,
                "gold": (row.get("scores") or {}).get(name),
            }
            for place, (row, answer) in enumerate(zip(rows, answers, strict=True))
        ]  # fmt: skip
        write_jsonl(folder / "answers.jsonl", kept)
    return AnswersArtifact(**artifact, model=name, usage=usage)


def _recorded(row: dict[str, Any], name: str, dataset: str) -> str:
    answers = row.get("answers") or {}
    if name not in answers:
        raise InputError(f"dataset {dataset!r}: prompt {row.get('id')!r} has no recorded answer of {name!r}")
    return str(answers[name])


def _asked(
    rows: list[dict[str, Any]], source: Annotator, max_tokens: int, temperature: float, most_failed: float, device: str
) -> tuple[list[dict[str, str]], dict[str, float]]:
    from paperflows.components.annotation.shards import Shards
    from paperflows.components.llm.request import Message, Request

    work = state_folder() / "checkpoints" / current_key()
    replayed = source.kind == "replay"

    def request(place: int, row: dict[str, Any]) -> Request:
        tags = {"item": str(row.get("id", place))} if replayed else {"stage": "answer"}
        return Request(
            model=source.model, messages=(Message(role="user", content=row["prompt"]),), max_tokens=max_tokens,
            temperature=temperature, tags=tags,
        )  # fmt: skip

    with ExitStack() as opened, progress(f"answers of {source.model}") as report:
        llm = open_client(source, "answers", device, work, opened)

        def ask(_shard: int, jobs: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
            replies = llm.run([request(place, row) for place, row in jobs])
            return [{"answer": reply.text, "error": reply.error or ""} for (reply,) in replies]

        shards = Shards(work, size=SHARD)
        found = shards.run(list(enumerate(rows)), ask, on_progress=report)
        usage = {key: float(value) for key, value in llm.usage.counters.items()}
        failed = [row["error"] for row in found if row["error"]]
        if len(failed) > most_failed * len(found):
            shards.clear()  # answers that came are in the cache; the next try asks for the others
            raise ServiceError(f"{source.model}: {len(failed)} of {len(found)} answers failed, {failed[0]} for one")
    shutil.rmtree(work, ignore_errors=True)
    return found, usage | {"failed": float(len(failed))}


class ScoresArtifact(Artifact):
    """`scores.jsonl`: the answers with `score` (none where there is no answer or no verdict) and `doubt` (0 sure, 1 not
    at all); how many verdicts could not be read, and how many answers were cut before they were scored.
    """

    model: str
    unread: int
    cut: int


@cached_task(name="score_answers", task_run_name="score_answers-{answers[model]}")
def score_answers(answers: AnswersArtifact, scorer: Artifact, paired: bool, device: str) -> ScoresArtifact:
    """Scores by a trained scorer: the likeliest of those on the dimension's scale; see `_unanswered`.

    It reads as many tokens as it was trained for: longer answers, with their prompts, are cut.

    Args:
        paired: it was trained on answers beside their prompts; else it reads answers alone.
    """
    import numpy as np

    from paperflows.components.alignment.scale import scale_of
    from paperflows.components.alignment.scorer import load_scorer
    from paperflows.components.training.device import accelerator

    rows = read_rows(open_artifact(answers) / "answers.jsonl")
    loaded = load_scorer(open_artifact(scorer)).to(accelerator(device).device)
    asked = [
        {"text": r["prompt"], "text_pair": r["answer"] or " ", "topic": r["dimension"]}
        if paired
        else {"text": r["answer"] or " ", "topic": r["dimension"]}
        for r in rows
    ]
    for row, probabilities in zip(rows, loaded.probabilities(asked), strict=True):
        allowed = np.array([score in scale_of(row["dimension"]) for score in loaded.scores])
        chosen = np.where(allowed, probabilities, 0)
        row |= {"score": int(loaded.scores[chosen.argmax()]), "doubt": round(float(1 - chosen.max() / chosen.sum()), 4)}
    longest = loaded.table(asked).lengths >= loaded.max_length
    return _kept(answers, _unanswered(rows), 0, int(longest.sum()))


@cached_task(name="judge_answers", task_run_name="judge_answers-{answers[model]}", retries=2, retry_on=(ServiceError,))
def judge_answers(answers: AnswersArtifact, judge: Annotator, most_failed: float, device: str) -> ScoresArtifact:
    """Scores by a language model with the rubric; an answer whose verdict cannot be read has none, and is first on the
    review sheet.

    Raises:
        ServiceError: the endpoint cannot be reached, or more verdicts could not be read than requests may fail.
    """
    from paperflows.components.alignment.judge import AlignmentJudge, Answered

    rows = read_rows(open_artifact(answers) / "answers.jsonl")
    work = state_folder() / "checkpoints" / current_key()
    with ExitStack() as opened:
        llm = open_client(judge, "judge", device, work, opened)
        found = AlignmentJudge(llm, model=judge.model).score(
            [Answered(r["dimension"], r["prompt"], r["answer"]) for r in rows]
        )
    unread = sum(score is None for score in found)
    if unread > most_failed * len(found):
        raise ServiceError(f"{judge.model}: {unread} of {len(found)} verdicts could not be read")
    for row, score in zip(rows, found, strict=True):
        row |= {"score": score, "doubt": float(score is None)}
    return _kept(answers, _unanswered(rows), unread, 0)


def _unanswered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A request that failed, or an answer without a word: it has no score, and is first on the review sheet."""
    return [row | {"score": None, "doubt": 1.0} if row["error"] or not row["answer"].strip() else row for row in rows]


def _kept(answers: AnswersArtifact, rows: list[dict[str, Any]], unread: int, cut: int) -> ScoresArtifact:
    from paperflows.components.data.jsonl import write_jsonl

    with new_artifact() as (folder, artifact):
        write_jsonl(folder / "scores.jsonl", rows)
    return ScoresArtifact(**artifact, model=answers["model"], unread=unread, cut=cut)


class BenchmarkArtifact(Artifact):
    """The review sheet and page, harmless answers by dimension of every model, and all figures."""

    figures: dict[str, float]
    models: list[str]


@cached_task(name="summarise_models")
def summarise_models(
    scored: list[ScoresArtifact], reviews: list[str], sheet: int, resamples: int, review_state: list[str]
) -> BenchmarkArtifact:
    """Human scores over the scorer's, then rates, scores, intervals, sub-components, pairs and agreement.

    Answers without a score are left out of all of these but the review sheet, and counted (`MODEL.unscored`); two
    models are compared on the prompts where both have one.

    Args:
        reviews: filled-in review sheets, one a person.
        sheet: answers on the new review sheet, the worst and the most doubtful first.
        review_state: sizes and times of the sheets, so that an edited one is read again.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.alignment import compare
    from paperflows.components.alignment.agreement import krippendorff_alpha
    from paperflows.components.alignment.review import merge_reviews, read_review, worst_page, write_review
    from paperflows.components.alignment.scale import HARMLESS, SCALES, check_scores, harmless_score

    rows = [row for s in scored for row in read_rows(open_artifact(s) / "scores.jsonl")]
    answered = {(row["id"], row["model"]): row["answer"] for row in rows}
    human = [read_review(Path(path), answered) for path in reviews]
    merged = merge_reviews(human)
    figures: dict[str, float] = {"review.human_scores": float(len(merged))}
    if merged:
        machine = [next(r["score"] for r in rows if (r["id"], r["model"]) == key) for key in merged]
        both_said = [m == h for m, h in zip(machine, merged.values(), strict=True) if m is not None]
        if both_said:
            figures["review.scorer_agrees"] = float(np.mean(both_said))
    if len(human) > 1:
        labels = np.array([[float(h.get(key, np.nan)) for key in merged] for h in human])
        both = labels[:, (~np.isnan(labels)).sum(0) >= 2]
        figures["review.scored_by_two"] = float(both.shape[1])
        if len(np.unique(both[~np.isnan(both)])) > 1:  # else agreement by chance cannot be told from any other
            figures["review.alpha"] = krippendorff_alpha(labels)
    with_gold = [(row["score"], row["gold"]) for row in rows if None not in (row["gold"], row["score"])]
    if with_gold and len({g for _, g in with_gold}) > 1:
        figures["recorded.alpha"] = krippendorff_alpha(np.array(with_gold, dtype=np.float64).T)
        figures["recorded.equal"] = float(np.mean([a == b for a, b in with_gold]))
    for row in rows:
        row["score"] = merged.get((row["id"], row["model"]), row["score"])
    harmless: dict[str, dict[str, Any]] = {}
    outputs: dict[str, Any] = {}
    for s in scored:
        model = s["model"]
        mine = [row for row in rows if row["model"] == model]
        groups: dict[str, Any] = {}
        for dimension in SCALES:
            given = [row["score"] for row in mine if row["dimension"] == dimension]
            if scores := [score for score in given if score is not None]:
                check_scores(dimension, scores)
                groups[dimension] = np.array([np.nan if s is None else float(s == HARMLESS) for s in given])
                figures[f"{model}.score.{dimension}"] = harmless_score(scores)
                outputs[f"{model}.{dimension}"] = groups[dimension]
        harmless[model] = groups
        figures |= _rates(model, groups, mine, resamples, compare)
        figures[f"{model}.unread"], figures[f"{model}.cut"] = float(s["unread"]), float(s["cut"])
        figures[f"{model}.unscored"] = float(sum(row["score"] is None for row in mine))
    if len(scored) > 1:
        raw = {f"{a} vs {b}": compare.paired_p(harmless[a], harmless[b]) for a, b in combinations(harmless, 2)}
        figures |= {f"p.{pair}": value for pair, value in compare.holm(raw).items()}
    worst = sorted(rows, key=lambda r: (r["score"] or 0, -r["doubt"], r["model"], r["id"]))[:sheet]
    with new_artifact() as (folder, artifact):
        write_review(folder / "review.csv", worst)
        (folder / "review.html").write_text(worst_page(worst), encoding="utf-8")
        save_file(outputs, folder / OUTPUTS)
    return BenchmarkArtifact(**artifact, figures=figures, models=list(harmless))


def _rates(
    model: str, groups: dict[str, Any], rows: list[dict[str, Any]], resamples: int, compare: Any
) -> dict[str, float]:
    """Rates in percent with their intervals: by dimension, by sub-component, overall."""
    from paperflows.components.alignment.scale import HARMLESS

    parts = {f"rate.{dimension}": {dimension: values} for dimension, values in groups.items()}
    for name in sorted({f"{r['dimension']}/{r['subcomponent']}" for r in rows if r["subcomponent"]}):
        own = [r["score"] for r in rows if f"{r['dimension']}/{r['subcomponent']}" == name]
        if chosen := [float(score == HARMLESS) for score in own if score is not None]:
            parts[f"rate.{name}"] = {name: chosen}
    parts["overall"] = groups
    found: dict[str, float] = {}
    for name, values in parts.items():
        mean, low, high = compare.mean_interval(values, resamples=resamples)
        found |= {f"{model}.{name}": 100 * mean, f"{model}.{name}.low": 100 * low, f"{model}.{name}.high": 100 * high}
    return found


def review_states(paths: tuple[str, ...]) -> list[str]:
    """Size and time of each file, for `summarise_models`.

    Raises:
        InputError: one is missing.
    """
    for path in paths:
        if not Path(path).is_file():
            raise InputError(f"reviews: {path} is not a file")
    return [f"{Path(p).stat().st_size} {Path(p).stat().st_mtime_ns}" for p in paths]


@cached_task(name="check_published")
def check_published() -> Artifact:
    """For each identity of each published row 1 where it holds, else 0."""
    from paperflows.components.alignment.published import PUBLISHED, identities

    return _identities([float(value) for model in PUBLISHED for value in identities(model).values()])


@cached_task(name="nothing")
def nothing() -> Artifact:
    """As many zeros as there are identities: what the published table is compared with."""
    from paperflows.components.alignment.published import PUBLISHED, identities

    return _identities([0.0 for model in PUBLISHED for _ in identities(model)])


def _identities(values: list[float]) -> Artifact:
    import numpy as np
    from safetensors.numpy import save_file

    with new_artifact() as (folder, artifact):
        save_file({"identities": np.array(values)}, folder / OUTPUTS)
    return artifact
