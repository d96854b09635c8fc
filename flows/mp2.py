"""MP2: a few prompts pre-trained over many tasks, and a router that combines them for a new one (Sun et al., 2023).

Every task is read as comprehension: a question, options, a text. The reader is frozen; modular prompts and a router
are learnt over the upstream tasks. A new task with a few examples learns its router first, by gradient or, of eight
numbers, by forward passes alone; against prompts from nothing, one pre-trained prompt, and equal gates.
"""

from typing import Any

from prefect import flow
from pydantic import Field, model_validator

from paperflows.flows.params import BySource, FlowParameters, Section
from paperflows.flows.prompts import joined
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import collect_sentences, load_dataset
from paperflows.tasks.exits import fetch_encoder
from paperflows.tasks.masked_lm import score_masked_lm, train_masked_lm
from paperflows.tasks.prompt_arms import adapt_prompts
from paperflows.tasks.prompts import draw_shots
from paperflows.tasks.reading import pretrain_prompts, train_reader
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner


class Line(Section):
    """One language: its encoder, the tasks it is pre-trained on, and new ones."""

    encoder: str = Field(description="characters: trained in the flow on the texts; else minilm, a folder or a hub id")
    texts: tuple[str, ...] = Field((), description="Unlabelled texts of an encoder trained in the flow")
    upstream: tuple[str, ...] = Field(min_length=2, description="Classification or multiple choice, with validation")
    downstream: tuple[str, ...] = Field(min_length=1, description="New tasks; none of their texts may be upstream")


class Characters(Section):
    """A masked LM over characters, trained from nothing."""

    width: int = Field(ge=8, le=4096, description="Hidden size")
    layers: int = Field(ge=1, le=48, description="Transformer layers")
    heads: int = Field(ge=1, le=64, description="Attention heads")
    vocab_size: int = Field(ge=100, le=100_000, description="Vocabulary, learnt from the texts")
    characters: int = Field(ge=50, le=50_000, description="Most characters in it")
    max_length: int = Field(ge=16, le=512, description="Positions; at least as many as a task's and a prompt needs")
    steps: int = Field(ge=1, description="Masked-LM steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Of the masked-LM training")
    sentences: int = Field(ge=1, description="Texts used, at most")
    reader_steps: int = Field(ge=1, description="In the place of prompting.reader_steps: it has more to learn")
    encoder_rate: float = Field(ge=0, le=1, description="In the place of prompting.encoder_rate")


class Prompting(Section):
    """Reader, prompts, and their training."""

    options: int = Field(ge=2, description="Most options of an upstream example: the right one and others at random")
    examples: int = Field(ge=1, description="Upstream training examples of each task, at most")
    max_length: int = Field(ge=16, le=512, description="Tokens of question, options and text")
    batch_size: int = Field(ge=1, description="Examples a step, of one task")
    reader_steps: int = Field(ge=1, description="Steps in which the span head learns over the upstream tasks")
    reader_rate: float = Field(gt=0, description="Learning rate of the span head")
    encoder_rate: float = Field(ge=0, le=1, description="Factor on it for the encoder; 0 freezes it, as in the paper")
    length: int = Field(ge=1, le=512, description="Vectors of a prompt")
    dimensions: int = Field(ge=1, le=5000, description="Numbers that make a prompt of one layer")
    scale: float = Field(gt=0, description="Of a prompt at the start, of one module or many, where states have about 1")
    deep: bool = Field(description="A prompt at every layer; else at the input alone")
    temperature: float = Field(gt=0, description="tau of the relaxed Bernoulli gates")
    prompt_steps: int = Field(ge=1, description="Steps of the prompts' pre-training")
    prompt_rate: float = Field(gt=0, description="Learning rate of the prompts there")
    router_rate: float = Field(gt=0, description="Factor on it for the router (two-speed training)")
    tune_steps: int = Field(ge=3, description="Steps on a new task, all arms")
    tune_rates: tuple[float, ...] = Field(
        min_length=1, description="Learning rates tried there by each arm of prompts; dev chooses, with the first seed"
    )
    tune_router_rate: float = Field(gt=0, description="Factor on it for the router")
    full_rates: tuple[float, ...] = Field(min_length=1, description="Learning rates tried by full tuning, as many")
    evaluations: int = Field(ge=1, description="Looks at dev over a training; the best weights are kept")
    router_calls: int = Field(ge=4, description="Forward calls of a search of the router, before one of the prompt")
    prompt_calls: int = Field(ge=4, description="Calls of that one; a search of one thing alone has as many as both")
    population: int = Field(ge=4, description="Candidates at a time; each counts as a call")
    router_sigma: float = Field(gt=0, description="First step of CMA-ES on router values")
    bound: float = Field(gt=0, description="Router values stay within +- this")
    prompt_sigma: float = Field(gt=0, description="First step of CMA-ES on a pre-trained prompt's numbers")
    alpha: float = Field(
        gt=0, description="Scale of the first candidates' prompts in a search from nothing, in units of layers' states"
    )

    @model_validator(mode="after")
    def _as_many(self) -> "Prompting":
        if len(self.full_rates) != len(self.tune_rates):
            raise ValueError(f"full_rates: {len(self.full_rates)} where prompts try {len(self.tune_rates)}")
        for name, calls in (("router_calls", self.router_calls), ("prompt_calls", self.prompt_calls)):
            if calls % self.population:
                raise ValueError(f"{name}: {calls} is no multiple of the population, {self.population}")
        return self


class Mp2(FlowParameters):
    """Parameters of the flow `mp2`."""

    datasets: BySource[dict[str, Line]]
    questions: dict[str, Any] = Field({}, description="Dataset -> question and options, for datasets of your own")
    modules: int = Field(ge=2, le=64, description="Modular prompts, K")
    shots: int = Field(ge=2, description="Examples of each class in train, and as many others in dev")
    evaluated: int = Field(ge=1, description="Test examples, at most")
    characters: Characters
    prompting: Prompting
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")


PAPER = Paper(
    slug="mp2",
    title="Multitask Pre-training of Modular Prompt for Chinese Few-Shot Learning",
    authors="Sun et al., ACL 2023",
    arxiv="2210.07565",
    parameters=Mp2,
)

# arm -> which prompts it starts from
ARMS = {"none": "", "modular": "modular", "modular_untrained": "", "uniform": "modular", "single": "single"}
ARMS |= {"scratch": "", "full": "", "search_router": "modular", "search_both": "modular"}
ARMS |= {"search_input": "", "search_scratch": ""}
# A reader reads where it is CLEAR above what knows no text on the mean of tasks, or ERRORS standard errors on one task.
CLEAR, ERRORS = 0.02, 3
KINDS = ["classification", "classification of a pair", "multiple choice"]


@flow(name="mp2", timeout_seconds=24 * 3600, task_runner=runner())
def mp2(params: Mp2) -> dict[str, Any]:
    """Pre-train modular prompts over many tasks, combine them for new ones, and judge that against fresh prompts."""
    with open_run("mp2", PAPER.title, params) as found:
        for name, line in params.datasets.of(params.data).items():
            upstream = [load_dataset(params.data, d, KINDS) for d in line.upstream]
            downstream = [load_dataset(params.data, d, KINDS[:2]) for d in line.downstream]
            texts = [load_dataset(params.data, d) for d in line.texts]
            encoder = encoder_of(params, line, [*texts, *upstream], downstream)
            settings = params.prompting.model_dump(exclude={"tune_rates", "full_rates"})
            settings |= {"questions": params.questions, "modules": params.modules}
            if line.encoder == "characters":
                settings |= params.characters.model_dump(include={"reader_steps", "encoder_rate"})
                known = score_masked_lm(encoder, [*texts, *upstream], params.characters.max_length)
                found.metrics |= {f"{name}.masked_lm.{kind}": value for kind, value in known.items()}

            reader = train_reader(encoder, upstream, downstream, settings, 0, params.device)
            prompts = {
                "modular": pretrain_prompts(reader, upstream, downstream, params.modules, settings, params.device),
                "single": pretrain_prompts(reader, upstream, downstream, 1, settings, params.device),
                "": None,
            }
            shots = [
                [draw_shots(d, params.shots, params.evaluated, None, seed) for d in downstream] for seed in params.seeds
            ]
            read = {arm: adapt_all(params, arm, reader, prompts[ARMS[arm]], shots, settings) for arm in ARMS}

            found.claims += [judge_claim(c, params.resamples) for c in claims_of(name, read, line.downstream)]
            found.datasets |= {d["name"]: d["content"] for d in [*upstream, *downstream, *texts]}
            describe(found, params, name, line, reader, prompts, read)
    return found.report


def encoder_of(params: Mp2, line: Line, texts: list[Any], held_out: list[Any]) -> Any:
    """The line's encoder: pretrained, or trained here on the unlabelled texts of the line."""
    if line.encoder != "characters":
        return fetch_encoder(line.encoder)
    c = params.characters.model_dump(exclude={"reader_steps", "encoder_rate"})
    corpus = collect_sentences(texts, held_out, 100, c.pop("sentences"), 0)
    return train_masked_lm(corpus, **c, seed=0, device=params.device)


def adapt_all(
    params: Mp2, arm: str, reader: Any, prompts: Any, shots: list[list[Any]], settings: dict[str, Any]
) -> list[list[Any]]:
    """One arm on every new task, for every seed of `shots`, at the rate that is best on dev with the first seed."""

    def adapt(s: Any, rate: float, seed: int) -> Any:
        return adapt_prompts.submit(arm, reader, prompts, s, settings | {"tune_rate": rate}, seed, params.device)

    first, p = params.seeds[0], params.prompting
    untuned = arm == "none" or arm.startswith("search")
    tried = (0.0,) if untuned else p.full_rates if arm == "full" else p.tune_rates
    trials = [{rate: adapt(s, rate, first) for rate in tried} for s in shots[0]]
    chosen = [max(tried, key=lambda rate: some[rate].result()["score"]) for some in trials]
    futures = [
        [adapt(s, rate, seed) for s, rate in zip(row, chosen, strict=True)]
        for seed, row in zip(params.seeds, shots, strict=True)
    ]
    return [[future.result() for future in row] for row in futures]


def claims_of(line: str, read: dict[str, Any], datasets: tuple[str, ...]) -> list[Claim]:
    """The paper's claims on one line."""
    versus = {
        "modular_beats_scratch": ("modular", "scratch", "Combined pre-trained prompts beat a prompt from nothing"),
        "modular_beats_single": ("modular", "single", "Combined prompts beat one pre-trained prompt"),
        "modular_beats_full": ("modular", "full", "Combined prompts beat tuning all weights"),
        "modular_beats_untrained": (
            "modular", "modular_untrained", "Combined pre-trained prompts beat as many that were not pre-trained"
        ),
        "modular_beats_uniform": ("modular", "uniform", "A router of the task's own beats equal gates"),
        "router_search_beats_scratch": (
            "search_router", "search_scratch",
            "Searching a router's few numbers beats BBTv2 from nothing at equal forward calls",
        ),
        "router_search_beats_input": (
            "search_router", "search_input",
            "Searching a router's few numbers beats BBT from nothing at equal forward calls",
        ),
    }  # fmt: skip
    return [
        Claim(
            id=f"{line}_{name}", statement=f"{said} ({line})", metric="accuracy", statistic="mean",
            ours=joined(read[ours]), baseline=joined(read[baseline]), baseline_name=baseline.replace("_", " "),
            datasets=list(datasets),
        )
        for name, (ours, baseline, said) in versus.items()
    ]  # fmt: skip


def describe(
    found: Any, params: Mp2, line: str, how: Line, reader: Any, prompts: dict[str, Any], read: dict[str, Any]
) -> None:
    """Metrics, plots and notes of one line."""
    bars: dict[str, dict[str, list[float]]] = {}
    for arm, rows in read.items():
        for at, first in enumerate(rows[0]):
            values = [row[at]["accuracy"] for row in rows]
            bars.setdefault(first["dataset"], {})[arm] = values
            found.metrics[f"{first['dataset']}.{arm}.accuracy"] = sum(values) / len(values)
            if first["calls"]:
                found.metrics[f"{first['dataset']}.{arm}.calls"] = float(first["calls"])
    found.metrics[f"{line}.upstream.reader"] = reader["score"]
    found.metrics |= {f"{line}.upstream.{kind}": p["score"] for kind, p in prompts.items() if p}
    found.metrics[f"{line}.upstream.gates_apart"] = prompts["modular"]["apart"]
    found.notes += judge_reader(found.metrics, line, reader["tasks"])
    heat: dict[str, list[list[float]]] = {}
    for arm in ("modular", "search_router"):
        for at, first in enumerate(read[arm][0]):
            rows = [row[at]["gates"] for row in read[arm]]
            heat[f"{first['dataset']}, {arm}"] = rows
            found.metrics[f"{first['dataset']}.{arm}.spread"] = max(max(r) - min(r) for r in rows)
    found.model = f"{found.model}; {line}: {how.encoder}".removeprefix("; ")
    rate = (params.characters if how.encoder == "characters" else params.prompting).encoder_rate
    fate = "frozen" if rate == 0 else "tuned over the upstream tasks"
    found.notes.append(
        f"{line}: the encoder is {fate} "
        "while the span head learns, and frozen from then on; all arms share it and its head, and there is one "
        "pre-training of each kind of prompts: seeds draw examples and adaptations."
    )
    found.children += [
        (f"{arm}-{t['dataset']}-seed{seed}", {"method": arm, "seed": seed}, t["history"])
        for arm, rows in read.items()
        for seed, row in zip(params.seeds, rows, strict=False)
        for t in row
    ]
    found.draw[f"{line}.png"] = lambda path: plots.draw_bars(bars, path, ylabel="test accuracy")
    found.draw[f"{line}_router.png"] = lambda path: plots.draw_heat(heat, path, xlabel="prompt", ylabel="seed")
    upstream = {f"from the top: {', '.join(how.upstream)}": prompts["modular"]["gates"]}
    found.draw[f"{line}_upstream.png"] = lambda path: plots.draw_heat(
        upstream, path, xlabel="prompt", ylabel="upstream task"
    )


def judge_reader(metrics: dict[str, float], line: str, tasks: list[dict[str, Any]]) -> list[str]:
    """Metrics of the reader on every upstream task, and a note where it knows no more than what sees no text."""
    for task in tasks:
        metrics |= {f"{line}.upstream.{task['name']}.{k}": task[k] for k in ("accuracy", "majority", "chance")}
    gains = {task["name"]: task["accuracy"] - max(task["majority"], task["chance"]) for task in tasks}
    gain = metrics[f"{line}.upstream.gain"] = sum(gains.values()) / len(gains)
    read = [t["name"] for t in tasks if gains[t["name"]] > ERRORS * (0.25 / t["examples"]) ** 0.5]
    if gain >= CLEAR:
        return []
    said = (
        f"{line}: over the upstream tasks the reader is {100 * gain:+.1f} points from the most frequent answer or from "
        "chance, whichever is higher"
    )
    if read:
        return [f"{said}; of them it reads {', '.join(read)} alone, so that the claims say little about prompts."]
    return [f"{said}: at chance. The claims of this line say nothing about prompts."]
