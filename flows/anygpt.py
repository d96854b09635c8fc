"""AnyGPT: one language model that reads and writes text, pictures, speech and music as tokens (Zhan et al., 2024).

Tokenizers are learnt from training media; a small language model gets their ids as new words, is aligned on pairs both
ways, and is tuned on conversations that a two-phase pipeline writes, fills with media and checks. Independent judges
say what its media show; specialists of one direction, and models with less, stand beside it.
"""

from statistics import fmean
from typing import Any, Literal

from prefect import flow
from pydantic import Field, model_validator

from paperflows.flows.multimodal import Alignment, Decoding, Media, Plain, Sizes, Synthesis, Tokenizers, Tuning
from paperflows.flows.params import BySource, FlowParameters
from paperflows.flows.registry import Paper
from paperflows.tasks import plots
from paperflows.tasks.aligning import TINY, Mixture, align, modality_of, train_text_lm, tune_on_conversations
from paperflows.tasks.any_to_any import (
    ACROSS,
    answer_across,
    answer_pairs,
    constant_outputs,
    make_previews,
    measure_ceilings,
    rename_outputs,
)
from paperflows.tasks.claims import Claim, judge_claim
from paperflows.tasks.data import load_dataset
from paperflows.tasks.media import load_media, train_media_tokenizer
from paperflows.tasks.run import open_run
from paperflows.tasks.runner import runner
from paperflows.tasks.synthesis import (
    convert_media,
    expand_topics,
    filter_conversations,
    find_things,
    judge_conversions,
    write_conversations,
    write_scenarios,
)

JOINT = "joint"


class Anygpt(FlowParameters):
    """Parameters of the flow `anygpt`."""

    media: BySource[Media]
    bars: int = Field(ge=1, description="Whole bars of a tune")
    tokenizers: Tokenizers
    model: str = Field(description="tiny (trained here on plain texts), or a folder or id of a Llama-like causal LM")
    sizes: Sizes
    text_lm: Plain
    models: dict[str, Mixture] = Field(description="Aligned with every seed; `joint` is the one that is tuned")
    beside: dict[str, Mixture] = Field(description="Aligned with the first seed, shown beside without a claim")
    specialists: tuple[str, ...] = Field(description="Directions with a model of their own")
    alignment: Alignment
    tuning: Tuning
    synthesis: Synthesis
    decoding: dict[Literal["text", "picture", "speech", "music", "drawing"], Decoding] = Field(
        description="How each modality is sampled"
    )
    items: int = Field(ge=2, description="Test items of a direction at most")
    previews: int = Field(ge=1, description="Files shown of each way into media")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of every verdict")

    @model_validator(mode="after")
    def _consistent(self) -> "Anygpt":
        if JOINT not in self.models:
            raise ValueError(f"models: {JOINT} cannot be left out, it is the one that is tuned")
        used = {m for mixture in (*self.models.values(), *self.beside.values()) for m in mixture.modalities}
        if missing := {"text", *used, *map(modality_of, self.specialists)} - set(self.decoding):
            raise ValueError(f"decoding: nothing says how {', '.join(sorted(missing))} is sampled")
        return self


PAPER = Paper(
    slug="anygpt",
    title="AnyGPT: Unified Multimodal LLM with Discrete Sequence Modeling",
    authors="Zhan et al., ACL 2024",
    arxiv="2402.12226",
    parameters=Anygpt,
)

READ, WRITE = ("picture_to_text", "speech_to_text"), ("text_to_picture", "text_to_speech")


@flow(name="anygpt", timeout_seconds=7 * 24 * 3600, task_runner=runner())
def anygpt(params: Anygpt) -> dict[str, Any]:
    """Tokenize, align, synthesise conversations, tune, and let independent judges look and listen."""
    with open_run("anygpt", PAPER.title, params) as found:
        first, device, n = params.seeds[0], params.device, params.items
        named = params.media.of(params.data)
        media = [
            load_media("builtin" if d.builtin else params.data, d.name, modality, params.bars)
            for modality, d in named.named().items()
        ]
        s = params.synthesis
        spoken = [one for one in media if one["modality"] != "drawing"]
        things = find_things(spoken)
        topics = expand_topics(s.writer, s.topics, things, first)
        scenarios = write_scenarios(topics, s.scenarios, [one["modality"] for one in spoken], things, first)
        written = write_conversations(scenarios, spoken, things, s.writer, first)
        filtered = filter_conversations(written, spoken, s.most_words, s.threshold)
        conversations = convert_media(filtered, spoken, things, s.tries, s.keep, first)
        recognised = judge_conversions(conversations, spoken, first)

        books = {**params.tokenizers.model_dump(), "music": {}}
        tokenized = [train_media_tokenizer(one, books[one["modality"]], first, device) for one in media]
        ceilings = measure_ceilings(media, tokenized, n, first)

        plain = load_dataset(params.data, named.text)
        lm = params.text_lm.model_dump()
        start = (
            train_text_lm(plain, tokenized, params.sizes.model_dump(), lm, first, device)
            if params.model == TINY
            else None
        )
        alone = {d: Mixture(modalities=(modality_of(d),), directions=(d,)) for d in params.specialists}
        mixtures = {**params.models, **params.beside, **alone}
        stage1 = params.alignment.model_dump()
        aligned = {
            name: [
                align.submit(name, mixture, params.model, start, tokenized, stage1, seed, device)
                for seed in (params.seeds[:1] if name in params.beside else params.seeds)
            ]
            for name, mixture in mixtures.items()
        }
        models = {name: [future.result() for future in by_seed] for name, by_seed in aligned.items()}
        joint, stage2 = params.models[JOINT], params.tuning.model_dump()
        tuned = [
            tune_on_conversations(model, joint, tokenized, conversations, stage2, seed, device)
            for model, seed in zip(models[JOINT], params.seeds, strict=True)
        ]

        decoding = {name: d.model_dump() for name, d in params.decoding.items()}
        unguided = {name: {**d, "guidance": 0.0} for name, d in decoding.items()}
        answered = {
            name: [answer_pairs(m, mixtures[name], tokenized, media, decoding, n, first, device) for m in by_seed]
            for name, by_seed in models.items()
        }
        writes = [d for d in joint.chosen() if d.startswith("text_to_")]
        answered["joint, no guidance"] = [
            answer_pairs(models[JOINT][0], joint, tokenized, media, unguided, n, first, device, writes)
        ]
        composed = [
            answer_pairs(m, joint, tokenized, media, decoding, n, first, device, ["drawing_to_text"], "test_compose")
            for m in models[JOINT]
            if named.drawing
        ]
        across = {
            name: [
                answer_across(m, joint, tokenized, media, topics, things, decoding, way, n, first, device)
                for m in by_seed
            ]
            for name, by_seed, way in (
                ("tuned", tuned, "free"), ("aligned", models[JOINT], "free"), ("direct", models[JOINT], "direct"),
                ("tuned direct", tuned[:1], "direct"), ("cascade", models[JOINT], "cascade"),
            )
        }  # fmt: skip
        previews = make_previews(
            answered[JOINT][0]["outputs"], across["tuned"][0]["outputs"], tokenized, params.previews
        )

        chance = {
            f"{one['modality']}_to_text.{facet}": 1 / count for one in media for facet, count in one["classes"].items()
        }
        claims = [
            *direction_claims(params, answered, ceilings, chance), *adding_claims(params, answered),
            *across_claims(across), *synthesis_claims(recognised), *drawing_claims(composed, answered, chance),
        ]  # fmt: skip
        found.claims = [judge_claim(claim, params.resamples) for claim in claims]
        found.datasets = {one["name"]: one["content"] for one in [*media, plain]}
        found.keep = {"model": tuned[0], "conversations": conversations, "previews": previews["files"]}
        found.keep |= {f"tokenizer_{one['modality']}": one for one in tokenized}
        steps = {
            "topics": topics,
            "scenarios": scenarios,
            "write": written,
            "filter": filtered,
            "convert": conversations,
        }
        describe(
            found, params, media, ceilings, answered, composed, across, previews, steps, {**models, "tuned": tuned},
            {**(start["too_long"] if start else {}), **models[JOINT][0]["too_long"], **tuned[0]["too_long"]},
        )  # fmt: skip
    return found.report


def direction_claims(params: Anygpt, answered: Any, ceilings: Any, chance: dict[str, float]) -> list[Claim]:
    """Claims 1 and 2: reading beside specialists and chance, writing beside the tokenizers' ceilings.

    Args:
        chance: of a direction's facet: one of the values that training captions have.
    """
    ours = _outputs(answered[JOINT])
    shared: dict[str, Any] = {"ours": ours, "statistic": "mean"}
    made = []
    for d in READ:
        if d in params.specialists:
            made.append(
                Claim(
                    id=f"near_specialist_{d}",
                    statement=f"{_say(d)}: joint training is at most 5 points below a specialist",
                    metric="accuracy", baseline=_outputs(answered[d]), baseline_name="specialist", datasets=[d],
                    margin=-0.05, **shared,
                )
            )  # fmt: skip
        guess = chance[f"{d}.word"]
        times = min(3.0, (1 + 1 / guess) / 2)  # of few words, half-way from chance to always right
        made.append(
            Claim(
                id=f"above_chance_{d}", statement=f"{_say(d)}: {times:g} times chance or more", metric="accuracy",
                baseline=[constant_outputs(o, guess) for o in ours], baseline_name="chance", datasets=[d],
                compare="ratio", margin=times, **shared,
            )
        )  # fmt: skip
    for d in WRITE:
        ceiling = rename_outputs(ceilings["outputs"], {f"reconstructed.{modality_of(d)}": d})
        made.append(
            Claim(
                id=f"recognised_{d}", datasets=[d], metric="accuracy of an independent judge", compare="ratio",
                margin=0.8,
                statement=f"{_say(d)}: recognised at least 0.8 times as often as reconstructions of real items",
                baseline=[ceiling] * len(ours), baseline_name="reconstructions", **shared,
            )
        )  # fmt: skip
    return made


def adding_claims(params: Anygpt, answered: Any) -> list[Claim]:
    """Claim 4: of two balanced models that differ in one modality, the larger loses no more than 3 points anywhere."""
    whole = {n: m for n, m in params.models.items() if m.balanced and m.marks and m.directions is None}
    made = []
    for more, larger in whole.items():
        for less, smaller in whole.items():
            added = set(larger.modalities) - set(smaller.modalities)
            if len(added) == 1 and set(smaller.modalities) < set(larger.modalities):
                made += [
                    Claim(
                        id=f"adding_{min(added)}_{d}", metric="accuracy", datasets=[d], statistic="mean", margin=-0.03,
                        statement=f"{_say(d)}: adding {min(added)} lowers it by no more than 3 points",
                        ours=_outputs(answered[more]), baseline=_outputs(answered[less]), baseline_name=less,
                    )
                    for d in smaller.chosen()
                ]  # fmt: skip
    return made


def across_claims(across: Any) -> list[Claim]:
    """Claims 3 and 5: from one medium to another by chain of modality, beside two steps and beside no instructions.

    Without instructions a model hardly ever begins a medium; its baseline is the better of what it answers freely and
    what it answers where the medium is begun for it.
    """
    shared: dict[str, Any] = {
        "ours": _outputs(across["tuned"]),
        "metric": "accuracy of an independent judge",
        "statistic": "mean",
    }
    made = []
    for given, wanted in ACROSS:
        way = f"{given}_to_{wanted}"
        free, forced = (fmean([a["measures"][way] for a in across[name]]) for name in ("aligned", "direct"))
        before, answers = ("direct", "forced") if forced > free else ("aligned", "free")
        made += [
            Claim(
                id=f"chain_{way}",
                statement=f"{_say(way)} in one answer is right 0.9 times as often as in two questions",
                baseline=_outputs(across["cascade"]), baseline_name="two questions", datasets=[way], compare="ratio",
                margin=0.9, **shared,
            ),
            Claim(
                id=f"instructions_{way}",
                statement=f"{_say(way)}: the synthesised conversations raise it by 20 points over the better of free "
                "and forced answers before them",
                baseline=_outputs(across[before]), baseline_name=f"stage 1 only, {answers}", datasets=[way], margin=0.2,
                **shared,
            ),
        ]  # fmt: skip
    return made


def synthesis_claims(recognised: Any) -> list[Claim]:
    """Claim 5: what the conversion made is what was described."""
    return [
        Claim(
            id="conversions_recognised",
            statement="Nine in ten converted media are recognised by judges that did not check them",
            metric="accuracy of an independent judge", ours=[recognised], baseline=[constant_outputs(recognised, 0.0)],
            baseline_name="none", datasets=["media"], statistic="mean", margin=0.9,
        )
    ]  # fmt: skip


def drawing_claims(composed: Any, answered: Any, chance: dict[str, float]) -> list[Claim]:
    """Claim 6: tones of held-out pairs of base and tone, groups of drawings never seen."""
    if not composed:
        return []
    tone, group = "drawing_to_text.tone", "drawing_to_text.balanced"
    outputs, ours = _outputs(composed), _outputs(answered[JOINT])
    return [
        Claim(
            id="tone_of_new_pairs", statement="The tone of a pair never seen is named 40 points above chance",
            metric="accuracy", ours=outputs, baseline=[constant_outputs(o, chance[tone]) for o in outputs],
            baseline_name="chance", datasets=[tone], statistic="mean", margin=0.4,
        ),
        Claim(
            id="group_of_new_drawings", statement="The group of a drawing never seen is named better than by chance",
            metric="balanced accuracy", ours=ours,
            baseline=[constant_outputs(o, chance["drawing_to_text.group"]) for o in ours],
            baseline_name="chance", datasets=[group], statistic="mean",
        ),
    ]  # fmt: skip


def describe(
    found: Any, params: Anygpt, media: Any, ceilings: Any, answered: Any, composed: Any, across: Any, previews: Any,
    steps: Any, models: Any, too_long: dict[str, int],
) -> None:  # fmt: skip
    """Metrics, plots, previews and notes of the report."""
    found.metrics |= ceilings["measures"]
    for name, by_seed in {**answered, "held-out pairs": composed}.items():
        for figure in by_seed[0]["measures"] if by_seed else ():
            found.metrics[f"{name.replace(', ', '_').replace(' ', '_')}.{figure}"] = fmean(
                [a["measures"][figure] for a in by_seed]
            )
    for name, by_seed in across.items():
        for figure in by_seed[0]["measures"]:
            found.metrics[f"across.{name.replace(' ', '_')}.{figure}"] = fmean([a["measures"][figure] for a in by_seed])
    conversations = steps["convert"]
    found.metrics |= {f"synthesis.{name}": value for name, value in conversations["figures"].items()}
    found.metrics["synthesis.kept"] = float(conversations["counts"]["kept"])
    found.tables["Yield of the synthesis"] = [
        {"step": step, "what": what, "number": number}
        for step, made in steps.items()
        for what, number in made["counts"].items()
    ]
    found.tables["Turns by input and output"] = [
        {"combination": name, "turns": number} for name, number in conversations["matrix"].items()
    ]
    found.tables["Conversations with described media"] = conversations["examples"]
    found.tables["Previews"] = previews["shown"]
    bars = {
        _say(d): {
            name: [a["measures"][f"accuracy.{d}"] for a in by_seed]
            for name, by_seed in answered.items()
            if f"accuracy.{d}" in by_seed[0]["measures"] and (name not in params.specialists)
        }
        | ({"specialist": [a["measures"][f"accuracy.{d}"] for a in answered[d]]} if d in params.specialists else {})
        for d in params.models[JOINT].chosen()
    }
    found.draw["directions.png"] = lambda path: plots.draw_bars(bars, path, ylabel="right, test items")
    ways = {
        _say(f"{given}_to_{wanted}"): {
            name: [a["measures"][f"{given}_to_{wanted}"] for a in by_seed] for name, by_seed in across.items()
        }
        for given, wanted in ACROSS
    }
    found.draw["across.png"] = lambda path: plots.draw_bars(ways, path, ylabel="right, test items")
    curves = {
        name: [(p["step"], fmean([m["history"][i]["loss"] for m in by])) for i, p in enumerate(by[0]["history"])]
        for name, by in models.items()
    }
    found.draw["training.png"] = lambda path: plots.draw_lines(
        curves, path, xlabel="step", ylabel="training loss, nats"
    )
    found.previews = previews["files"]
    found.model = (
        f"a decoder of {params.sizes.layers} layers, {params.sizes.width} wide"
        if params.model == TINY
        else params.model
    )
    left_out = {one["name"]: one["left_out"] for one in media if one["left_out"]}
    too_long = {name: count for name, count in too_long.items() if count}
    found.notes = [
        "Judges are scikit-learn classifiers trained on real training signals; they never saw a token. One panel "
        "checks the conversions, the other decides the claims.",
        f"Loss weighting `{params.alignment.weighting}` (the paper's is `paper`). Every direction of a balanced model "
        f"sees {params.alignment.steps * params.alignment.batch_size} pairs, as in the joint model so in specialists.",
        "Pictures, recordings and tunes inside conversations are altered items of one half of the training splits: the "
        "offline stand-in for text-to-image, text-to-music and text-to-speech services. What judges them learnt from "
        "the other half.",
        f"Left out, as the events cannot hold them: {left_out}" if left_out else "",
        f"Longer than a row of tokens, so never seen in training (stage 1: of the joint model): {too_long}"
        if too_long
        else "",
        "Recordings of the built-in source are synthesised by formants, not spoken."
        if params.data == "builtin"
        else "",
    ]
    found.children = [
        (f"{name}-seed{seed}", {"method": name, "seed": seed}, model["history"])
        for name, by_seed in models.items()
        for seed, model in zip(params.seeds, by_seed, strict=False)
    ]


def _outputs(by_seed: list[Any]) -> list[dict[str, str]]:
    return [one["outputs"] for one in by_seed]


def _say(direction: str) -> str:
    return direction.replace("_to_", " to ").capitalize()
