"""Aggregation of reasoning: choose among sampled answers by the quality of their reasoning (Yin et al., 2024).

Chains that end in the same answer are scored against each other, the best of each answer are then compared across
answers, and more chains are sampled while the comparison is close. Against majority votes and weighted votes over the
same chains. Offline, chains are recorded ones and the judge is a program that checks steps or a verifier trained on
other questions; with an endpoint both are language models.
"""

from statistics import fmean
from typing import Any, Literal

from prefect import flow
from pydantic import Field

from paperflows.flows.params import FlowParameters, Section
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.annotators import LanguageModel
from paperflows.tasks.chain_reading import ChainReading, read_chains
from paperflows.tasks.chains import (
    Pool,
    describe_chains,
    group_by_topic,
    sample_chains,
    score_chains,
    score_read_chains,
)
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.hinting import ask_with_hints
from paperflows.tasks.reasoning import Selection, aggregate_answers, chains_used, select_minority, vote_answers
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.simulation import find_break_even, simulate_judge


class Pools(Section):
    """Which questions and chains, by source."""

    builtin: tuple[Pool, ...] = Field(min_length=1, description="Read when data is builtin")
    folder: tuple[Pool, ...] = Field(min_length=1, description="Read when data is a folder")

    def of(self, source: str) -> tuple[Pool, ...]:
        """The pools for a source; recorded chains are not on the hub."""
        return self.builtin if source == "builtin" else self.folder


class Verifier(Section):
    """The judge that is trained on other questions' chains."""

    kinds: tuple[Literal["trees", "pairwise", "encoder", "evidence"], ...] = Field(
        min_length=1, description="The first is the one that the claims judge"
    )
    folds: int = Field(ge=2, description="Parts of the questions; each is judged by a model trained on the others")
    curve: tuple[float, ...] = Field((), description="Shares of the training questions for the plot of judge quality")
    cross_encoded: tuple[str, ...] = Field(
        (), description="Pools of a verifier for which an encoder of question and chain is trained as a judge too"
    )
    cross_encoder: ChainReading


class LanguageModels(Section):
    """Used by pools whose judge is llm."""

    judge: LanguageModel
    sampler: LanguageModel | None = Field(
        None, description="Who answers the questions; empty takes the recorded chains"
    )
    temperature: float = Field(ge=0, description="Of the sampler")


class Aor(FlowParameters):
    """Parameters of the flow `aor`."""

    pools: Pools
    selection: Selection
    ablations: tuple[Literal["k1", "k5", "no_local", "no_compare", "no_sampling"], ...] = Field(
        (), description="Parts of the method to leave out, or other numbers of representatives"
    )
    verifier: Verifier
    llm: LanguageModels
    max_questions: int = Field(ge=1, description="Questions of a pool that are answered, the first ones")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="aor",
    title="Aggregation of Reasoning: A Hierarchical Framework for Enhancing Answer Selection in Large Language Models",
    authors="Yin et al., LREC-COLING 2024",
    arxiv="2405.12939",
    parameters=Aor,
)

ABLATIONS: dict[str, dict[str, Any]] = {
    "k1": {"keep": 1},
    "k5": {"keep": 5},
    "no_local": {"local": False},
    "no_compare": {"compare": False},
    "no_sampling": {},
}

SIMULATED = (0.7, 0.75, 0.8, 0.85, 0.9, 0.94, 0.97)  # AUC of the simulated judges, for the plot of judge quality


@flow(name="aor", timeout_seconds=24 * 3600, task_runner=runner())
def aor(params: Aor) -> dict[str, Any]:
    """Choose answers by aggregating reasoning and by votes over the same chains, and judge which is right more."""
    with open_run("aor", PAPER.title, params) as found:
        claims: list[Claim] = []
        for pool in params.pools.of(params.data):
            data = load_dataset(params.data, pool.dataset, ["reasoning chains"])
            found.datasets[data["name"]] = data["content"]
            hinted: dict[str, Any] = {}
            if pool.judge == "llm" and params.llm.sampler:
                data, pool = sampled(found, params, data, pool)
                hinted = hint(found, params, data, pool)
            by_judge = judged(params, data, pool)
            topics = group_by_topic(data, pool, params.max_questions)
            for how, scores in by_judge.items():
                votes = [vote_answers(data, pool, s, params.max_questions) | hinted for s in scores]
                chosen = [aggregate(params, data, pool, s, seed) for s, seed in zip(scores, params.seeds, strict=True)]
                label = pool.dataset if len(by_judge) == 1 else f"{pool.dataset}.{how}"
                record(found, label, scores, votes, chosen)
                if how == next(iter(by_judge)):
                    claims += claims_of(found, params, data, pool, votes, chosen, topics)
                    ablate(found, params, data, pool, scores[0], label)
                if how == "cross_encoder":
                    claims += claims_of_reading(params, data, pool, votes, chosen, topics)
            draw_curve(found, params, data, pool)
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        describe(found, params)
    return found.report


def sampled(found: Any, params: Aor, data: Any, pool: Pool) -> tuple[Any, Pool]:
    """The same questions with chains of the user's model, for every method alike."""
    assert params.llm.sampler
    data = sample_chains(
        data, pool, params.llm.sampler, params.llm.temperature, params.max_questions, params.device
    )  # fmt: skip
    found.metrics |= {f"sampler.{name}.{pool.dataset}": value for name, value in data["usage"].items()}
    found.keep[f"chains_{pool.dataset}"] = data
    return data, pool.unfiltered


def hint(found: Any, params: Aor, data: Any, pool: Pool) -> dict[str, Any]:
    """Progressive-hint prompting from the first of the same chains; recorded completions hold no such answers.

    The first chain counts as a call.
    """
    assert params.llm.sampler
    if params.llm.sampler.kind == "replay":
        return {}
    hinted = ask_with_hints(data, pool, params.llm.sampler, params.llm.temperature, params.device)
    found.metrics[f"calls.{pool.dataset}.progressive_hints"] = hinted["chains"]
    found.metrics |= {f"hints.{name}.{pool.dataset}": value for name, value in hinted["usage"].items()}
    found.keep[f"hints_{pool.dataset}"] = hinted
    return {"progressive_hints": hinted}


def judged(params: Aor, data: Any, pool: Pool) -> dict[str, list[Any]]:
    """Scores by each judge of the pool, one artifact a seed; a program gives the same scores to all seeds."""
    if pool.judge in ("letters", "arithmetic"):
        scores = score_chains(data, pool, pool.judge, None, params.verifier.folds, 1.0, params.seeds[0])
        return {pool.judge: [scores] * len(params.seeds)}
    v = params.verifier
    kinds = v.kinds[:1] if pool.judge == "llm" else v.kinds  # beside a language model it only weighs the votes
    described = describe_chains(data, pool, "encoder" in v.kinds, params.device)
    found: dict[str, list[Any]] = {
        k: [score_chains(data, pool, k, described, v.folds, 1.0, seed) for seed in params.seeds] for k in kinds
    }
    if pool.judge == "verifier" and pool.dataset in v.cross_encoded:
        found["cross_encoder"] = [read(params, data, pool, seed) for seed in params.seeds]
    return found


def read(params: Aor, data: Any, pool: Pool, seed: int) -> Any:
    """Scores by encoders that read question and chain, each trained on the other folds."""
    c = params.verifier.cross_encoder
    folds = [read_chains(data, pool.filters, c, fold, seed, params.device) for fold in range(c.folds)]
    return score_read_chains(data, pool, folds, seed)


def aggregate(params: Aor, data: Any, pool: Pool, scores: Any, seed: int, **changes: Any) -> Any:
    """AoR on one pool with one judge."""
    selection = params.selection.model_copy(update=changes)
    return aggregate_answers(
        data, pool, selection, None if pool.judge == "llm" else scores, params.llm.judge, params.max_questions, seed,
        params.device,
    )  # fmt: skip


def ablate(found: Any, params: Aor, data: Any, pool: Pool, scores: Any, label: str) -> None:
    """Accuracy and chains without a part of the method, or with another number of representatives."""
    for name in params.ablations:
        some = pool.model_copy(update={"most": min(pool.first, pool.most)}) if name == "no_sampling" else pool
        chosen = aggregate(params, data, some, scores, params.seeds[0], **ABLATIONS[name])
        found.metrics[f"accuracy.{label}.aor_{name}"] = chosen["accuracy"]
        found.metrics[f"chains.{label}.aor_{name}"] = chosen["chains"]


def claims_of(
    found: Any, params: Aor, data: Any, pool: Pool, by_seed: list[Any], chosen: list[Any], topics: Any
) -> list[Claim]:
    """The paper's claims for one pool, and what the same scores do without its machinery; with a program or a language
    model as judge also its claims on cost and on minorities.
    """
    name, seeds = data["name"], len(params.seeds)
    shared: dict[str, Any] = {"datasets": [name], "statistic": "mean", "groups": topics}
    votes = by_seed[0]

    def accuracy(identity: str, statement: str, ours: list[Any], baseline: str) -> Claim:
        return Claim(
            id=f"{identity}_{name}", statement=f"{name}: {statement}", metric="accuracy", ours=ours,
            baseline=[v[baseline] for v in by_seed], baseline_name=baseline.replace("_", " "), **shared,
        )  # fmt: skip

    judge = "verifier" if pool.judge == "llm" else "judge"  # beside a language model a verifier weighs the votes
    claims = [
        accuracy("aor_beats_majority", "AoR beats the majority of all chains", chosen, "majority"),
        accuracy("aor_beats_weighted", f"AoR beats votes weighted by the {judge}", chosen, "weighted_vote"),
        accuracy("aor_beats_best", f"AoR beats the chain that the {judge} likes best", chosen, "best_of_n"),
    ]
    if pool.judge in ("verifier", "llm"):
        weighted = [v["weighted_vote"] for v in by_seed]
        said = f"Votes weighted by the {judge} beat the majority"
        claims.append(accuracy("weighted_beats_majority", said, weighted, "majority"))
    if pool.judge == "verifier":
        return claims
    minority = [select_minority(data, c, votes["majority"], votes["any_right"], topics) for c in chosen]
    if not all(minority):
        found.notes.append(f"{name}: no right answer lost the vote, so whether AoR finds such answers cannot be told.")
    else:
        claims.append(
            Claim(
                id=f"minority_{name}", metric="accuracy", baseline_name="one half",
                statement=f"{name}: AoR finds more than half of the right answers that lose the vote",
                ours=[m["aor"] for m in minority], baseline=[m["half"] for m in minority],
                **shared | {"groups": minority[0]["topics"]},
            )
        )  # fmt: skip
    loses = fmean([c["accuracy"] for c in chosen]) < votes["majority"]["accuracy"]
    claims.append(
        Claim(
            id=f"cheaper_{name}",
            statement=f"{name}: AoR takes at most 0.7 of the chains" + (", at lower accuracy" if loses else ""),
            metric="chains a question",
            ours=[chains_used(data, c) for c in chosen],
            baseline=[chains_used(data, votes["majority"])] * seeds,
            baseline_name="majority",
            compare="ratio",
            margin=0.7,
            lower_is_better=True,
            **shared,
        )
    )
    return claims


def claims_of_reading(
    params: Aor, data: Any, pool: Pool, votes: list[Any], chosen: list[Any], topics: Any
) -> list[Claim]:
    """What the encoder of question and chain adds: to the majority, to the regression it starts from, and to knowing
    which model wrote a chain.
    """
    name, folds = data["name"], params.verifier.cross_encoder.folds
    described = describe_chains(data, pool, False, params.device)
    simple = [
        vote_answers(
            data, pool, score_chains(data, pool, "pairwise", described, folds, 1.0, seed), params.max_questions
        )["weighted_vote"]
        for seed in params.seeds
    ]
    weighted = [v["weighted_vote"] for v in votes]

    def claim(identity: str, statement: str, ours: list[Any], baseline: list[Any], named: str) -> Claim:
        return Claim(
            id=f"cross_encoder_{identity}_{name}", statement=f"{name}: {statement}", metric="accuracy", ours=ours,
            baseline=baseline, baseline_name=named, datasets=[name], statistic="mean", groups=topics,
        )  # fmt: skip

    said = "votes weighted by the regression with an encoder beat"
    majority = [v["majority"] for v in votes]
    claims = [
        claim("aor", "judged by the regression with an encoder, AoR beats the majority", chosen, majority, "majority"),
        claim("weighted", f"{said} the majority", weighted, majority, "majority"),
        claim("adds", f"{said} those by the regression alone", weighted, simple, "pairwise, equal folds"),
    ]
    if "model_vote" in votes[0]:
        priors = [v["model_vote"] for v in votes]
        claims.append(claim("beats_models", f"{said} those by who wrote the chain", weighted, priors, "model vote"))
    return claims


def record(found: Any, label: str, scores: list[Any], votes: list[Any], chosen: list[Any]) -> None:
    """Metrics and examples of one pool and judge."""
    accuracies = {name: [of_seed[name]["accuracy"] for of_seed in votes] for name in votes[0]}
    found.metrics |= {f"accuracy.{label}.{name}": fmean(by_seed) for name, by_seed in accuracies.items()}
    found.metrics[f"chains.{label}.adaptive"] = votes[0]["adaptive"]["chains"]
    found.metrics[f"accuracy.{label}.aor"] = fmean([c["accuracy"] for c in chosen])
    found.metrics[f"chains.{label}.aor"] = fmean([c["chains"] for c in chosen])
    if known := [s["auc"] for s in scores if s["auc"] is not None]:
        found.metrics[f"judge_auc.{label}"] = fmean(known)
    else:
        found.notes.append(f"{label}: all chains are right, or none, so that no judge has anything to tell apart.")
    for name in chosen[0]["counts"]:
        found.metrics[f"{name}.{label}"] = fmean([c["counts"][name] for c in chosen])
    found.keep[f"choices_{label.replace('.', '_')}"] = chosen[0]
    found.tables[f"{label}: questions that needed a comparison"] = chosen[0]["examples"]
    bars = accuracies | {"aor": [c["accuracy"] for c in chosen]}
    found.draw[f"accuracy_{label}.png"] = lambda path: plots.draw_bars({label: bars}, path, ylabel="accuracy")


def draw_curve(found: Any, params: Aor, data: Any, pool: Pool) -> None:
    """AoR minus majority against the quality of the judge: trained on ever more questions, and simulated."""
    if pool.judge != "verifier" or not params.verifier.curve:
        return
    v, seed, name = params.verifier, params.seeds[0], pool.dataset
    described = describe_chains(data, pool, "encoder" in v.kinds, params.device)
    trained = [score_chains(data, pool, v.kinds[0], described, v.folds, share, seed) for share in v.curve]
    if trained[0]["auc"] is None:
        return
    majority = vote_answers(data, pool, trained[0], params.max_questions)["majority"]["accuracy"]

    def line(judges: list[Any]) -> list[tuple[float, float]]:
        return sorted((s["auc"], aggregate(params, data, pool, s, seed)["accuracy"] - majority) for s in judges)

    simulated = line([simulate_judge(data, pool, quality, seed) for quality in SIMULATED])
    lines = {v.kinds[0]: line(trained), "simulation that sees the answers (analysis only)": simulated}
    even = find_break_even(simulated)
    if even is not None:
        found.metrics[f"simulated.break_even_auc.{name}"] = even
    where = "none in its range" if even is None else f"an AUC of {even:.2f}, interpolated"
    found.notes.append(
        f"{name}: the second line in judge_{name}.png is a simulation, no judge: right or wrong plus Gaussian noise, "
        "which sees the answers. It is for analysis only, no claim or accuracy uses it. "
        f"Its break-even with the majority: {where}."
    )
    found.draw[f"judge_{name}.png"] = lambda path: plots.draw_lines(
        lines, path, xlabel="the judge's AUC over chains", ylabel="AoR minus majority, accuracy"
    )


def describe(found: Any, params: Aor) -> None:
    """Who judged, and which baselines there could be."""
    judges = {pool.dataset: pool.judge for pool in params.pools.of(params.data)}
    unasked = ", ".join(name for name in judges if f"accuracy.{name}.progressive_hints" not in found.metrics)
    found.model = ", ".join(dict.fromkeys(judges.values())) + " as judge"
    listed = ", ".join(f"{name}: {judge}" for name, judge in judges.items())
    built_in = (
        "The built-in chains are a program's, whose every slip its judge can see: they show the machinery, not how "
        "good a judge is on a language model's chains."
    )
    c = params.verifier.cross_encoder
    found.notes += [
        built_in if params.data == "builtin" else "",
        f"Judges: {listed}. A program checks the steps that a chain states and sees no answer key; a verifier is "
        "trained on the chains of other questions. The judge `evidence` also sees how many chains agree, which is a "
        "vote by the back door. Ties of votes count as expected. Where a judge is trained on pairs (`pairwise`, "
        "`encoder`, `cross_encoder`), scores of each fold are set to one mean and deviation, and votes are weighted by "
        "the share of right chains at such scores in the other folds. That curve is drawn by models which saw this "
        "fold's answers; the scores are not.",
        f"`cross_encoder`: the regression of `pairwise` and the first {c.layers} layers of {c.model} over question and "
        f"chain, {c.steps} steps of {c.batch_size} pairs in each of {c.folds} folds. It reads the chain's words, so "
        "that it can learn who writes well; `model_vote` does that alone."
        if any(".cross_encoder." in name for name in found.metrics)
        else "",
        f"verifier.cross_encoded names {', '.join(absent)}: no pool of this run whose judge is a verifier."
        if (absent := [name for name in params.verifier.cross_encoded if judges.get(name) != "verifier"])
        else "",
        "A program that checks steps computes the answer on the way, so that its best chain is hard to beat. Points of "
        "a verifier are ranks among all chains of a pool: the threshold asks for its best ones, and where none of a "
        "question's answers has enough, AoR falls back to the majority (fell_back_to_majority).",
        "The vote model_vote reads no chain: a chain weighs how often its model is right on the questions of other "
        "folds."
        if any(name.endswith(".model_vote") for name in found.metrics)
        else "",
        f"Progressive-hint prompting was not run on {unasked}: it asks the model that wrote the chains again, and a "
        "record holds no such answers."
        if unasked
        else "",
    ]
