"""Verdicts: each claim of a flow, decided by the one paired bootstrap from stored outputs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import GOLD, GROUPS, OUTPUTS, Artifact, open_artifact


class PaperFigure(BaseModel):
    """What the paper reports for the same comparison; `where` names the table."""

    ours: float
    baseline: float | None
    where: str


def bare(artifact: Artifact) -> Artifact:
    """Without what else a task says of it, so that a verdict is decided anew only when the outputs change."""
    return Artifact(path=artifact["path"], sha256=artifact["sha256"])


Stored = Annotated[dict[str, str], BeforeValidator(bare)]


class Claim(BaseModel):
    """A statement that can fail, and the outputs that decide it.

    `ours` and `baseline` are artifacts, one a seed, holding `outputs.safetensors`: dataset -> (N,) outputs.
    `gold` holds `gold.safetensors`: dataset -> (N,); None where the outputs are per-example scores already.
    `groups` holds `groups.safetensors`: dataset -> (N,), the examples that belong together, such as the aspects of a
    sentence, and are resampled together; None where each stands for itself. Statistics of counts read outputs
    (N, K); `compare` says whether the effect is ours - baseline or ours / baseline.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    statement: str
    metric: str
    baseline_name: str
    ours: list[Stored]
    baseline: list[Stored]
    gold: Stored | None = None
    groups: Stored | None = None
    datasets: list[str]
    statistic: Literal["spearman", "mean", "median", "f1", "f1_gap", "accuracy_f1", "macro_f1", "ratio_of_sums"]
    compare: Literal["difference", "ratio"] = "difference"
    margin: float = Field(0.0, description="what the effect must exceed, in units of the metric")
    lower_is_better: bool = Field(False, description="the effect must stay below the margin instead (losses, seconds)")
    paper: PaperFigure | None = None
    kind: Literal["finding", "check"] = Field(
        "finding",
        description="check: of fixed numbers or of machinery; decided without an interval, and it counts for no method",
    )


@cached_task(name="judge_claim")
def judge_claim(claim: Claim, resamples: int = 1000) -> dict[str, Any]:
    """The claim's entry of the report: both figures, effect, 95 % interval and verdict."""
    import numpy as np

    from paperflows.components.evaluation import statistics
    from paperflows.components.evaluation.bootstrap import Paired, decide, paired_bootstrap

    ours, baseline = _outputs(claim.ours), _outputs(claim.baseline)
    gold = _outputs([claim.gold], GOLD)[0] if claim.gold else None
    groups = _outputs([claim.groups], GROUPS)[0] if claim.groups else {}
    pairs = []
    for name in claim.datasets:
        a, b = np.stack([o[name] for o in ours]), np.stack([o[name] for o in baseline])
        pairs.append(Paired(gold[name] if gold else np.zeros(a.shape[1]), a, b, groups[name] if groups else None))
    statistic = statistics.mean_statistic if claim.statistic == "mean" else getattr(statistics, claim.statistic)
    measured = claim.statistic == "median"  # repeats of a measurement, of which none is unseen
    effect = paired_bootstrap(pairs, statistic, resamples=resamples, compare=claim.compare, unseen=not measured)
    interval = effect.ci95 if claim.kind == "finding" else (effect.effect, effect.effect)
    return {
        "id": claim.id,
        "statement": claim.statement,
        "metric": claim.metric,
        "ours": effect.ours,
        "baseline": effect.baseline,
        "baseline_name": claim.baseline_name,
        "effect": effect.effect,
        "compare": claim.compare,
        "lower_is_better": claim.lower_is_better,
        "margin": claim.margin,
        "ci95": list(interval),
        "n": effect.n,
        "seeds": len(claim.ours),
        "paper": claim.paper.model_dump() if claim.paper else None,
        "kind": claim.kind,
        "caveat": effect.caveat,
        "verdict": "undecided"
        if effect.caveat
        else decide(interval, claim.margin, lower_is_better=claim.lower_is_better),
    }


def _outputs(artifacts: list[Any], file: str = OUTPUTS) -> list[dict[str, Any]]:
    from safetensors.numpy import load_file

    return [load_file(open_artifact(Artifact(path=a["path"], sha256=a["sha256"])) / file) for a in artifacts]
