"""Train taggers with exits in two stages, and run them with words that leave."""

from typing import Any

from paperflows.tasks.data import DatasetArtifact, read_split
from paperflows.tasks.policy import cached_task
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.timing import store_times
from paperflows.tasks.tradeoff import CurveArtifact, store_curves
from paperflows.tasks.training import fit

STAGES = ("joint", "last", "self_sampling", "random_exits")
LIMITS = {"validation": "validated", "test": "evaluated"}  # split -> the setting that says how much of it is drawn


class TaggerArtifact(Artifact):
    """A trained tagger (the artifact), its static points on validation and test, and how it was trained."""

    dataset: str
    fallback: int
    static: CurveArtifact
    parameters: int
    history: list[dict[str, float]]


class WordCurves(CurveArtifact):
    """A curve on test, and the points of the same rules on validation, by which settings are chosen."""

    validation: dict[str, list[list[float]]]


class AtBudget(Artifact):
    """Outputs at a budget, and what they really cost on test (share of the full FLOPs) by dataset."""

    costs: dict[str, float]


@cached_task(name="train_tagger", task_run_name="{stage}-depth{depth}-{data[name]}-seed{seed}")
def train_tagger(
    stage: str,
    start: Artifact,
    data: DatasetArtifact,
    depth: int | None,
    frozen: str,
    training: dict[str, Any],
    seed: int,
    device: str,
) -> TaggerArtifact:
    """Train a tagger with an exit at every layer.

    Args:
        stage: "joint": all exits on all words, from a plain encoder or going on from a kept tagger; "last": the last
            exit alone (a truncated model); "self_sampling": from a kept tagger, words leave as its confidences say;
            "random_exits": the same with these exits dealt at random.
        frozen: what becomes of a frozen state, "renorm" or "copy" (see `ExitEncoder`).
        training: examples, evaluated, max_length, freeze_embeddings, steps, batch_size, learning_rate, head_rate,
            flooding, before (steps that `start` has had); for the last two stages the reaches and thresholds to draw
            from.
    """
    from collections import Counter

    import torch

    from paperflows.components.early_exit import self_sampling, word_curves
    from paperflows.components.early_exit.encoder import load_exit_encoder
    from paperflows.components.early_exit.storage import NOTE, load_tagger, save_model
    from paperflows.components.early_exit.token_exit import MultiExitTagger
    from paperflows.components.early_exit.words import WordTable, tags_of
    from paperflows.components.models.pretrained import load_tokenizer
    from paperflows.components.training.device import bf16_is_fast

    t, folder = training, open_artifact(start)
    rows = _sample(data, "train", t["examples"])
    counts = Counter(tag for row in rows for tag in tags_of(row))
    torch.manual_seed(seed)
    if (folder / NOTE).is_file():
        model, tokenizer, labels = load_tagger(folder, freeze_embeddings=t["freeze_embeddings"])
    else:
        labels = sorted(
            {tag for split in ("train", "validation", "test") for r in read_split(data, split) for tag in tags_of(r)}
        )
        tokenizer = load_tokenizer(str(folder))
        encoder = load_exit_encoder(
            str(folder), separator=tokenizer.sep_token_id, depth=depth, frozen=frozen,
            freeze_embeddings=t["freeze_embeddings"],
        )  # fmt: skip
        model = MultiExitTagger(encoder, outputs=len(labels))
    full_depth = int(model.encoder.encoder.config.num_hidden_layers)
    fallback = labels.index(counts.most_common(1)[0][0])
    bf16 = bf16_is_fast(device)
    words = WordTable(rows, tokenizer, labels, max_length=t["max_length"])
    common: dict[str, Any] = {"batch_size": t["batch_size"], "seed": seed, "before": t["before"], "bf16": bf16}
    if stage in ("joint", "last"):
        objective = self_sampling.joint_objective(words, last_only=stage == "last", **common)
    else:
        stored = self_sampling.stored_exits(model, words, bf16=bf16)
        objective = self_sampling.self_sampling_objective(
            words,
            stored,
            reaches=t["reaches"],
            thresholds=t["thresholds"],
            shuffled=stage == "random_exits",
            flooding=t["flooding"],
            **common,
        )
    name = f"{stage}-depth{model.encoder.depth}-{data['name']}-seed{seed}"
    done = fit(
        name, {"stage": stage, "depth": model.encoder.depth, "dataset": data["name"], "seed": seed, **t}, model,
        objective.batch_at, objective.loss_fn, t["steps"], t["learning_rate"], seed, device,
        rates={"exits.": t["head_rate"]},
    )  # fmt: skip
    held = WordTable(_sample(data, "test", t["evaluated"]), tokenizer, labels, max_length=t["max_length"])
    said = self_sampling.stored_exits(model, held, bf16=bf16)["said"]
    static = store_curves(
        {
            data["name"]: word_curves.static_words(
                said, held, full_depth=full_depth, width=model.encoder.width, inner=model.encoder.inner,
                fallback=fallback,
            )
        }
    )  # fmt: skip
    with new_artifact() as (out, artifact):
        save_model(model, tokenizer, labels, out, frozen=frozen)
    return TaggerArtifact(
        **artifact, dataset=data["name"], fallback=fallback, static=static, history=done.history,
        parameters=sum(p.numel() for p in model.parameters()),
    )  # fmt: skip


@cached_task(name="trace_words", task_run_name="trace_words-{rule[name]}-{data[name]}")
def trace_words(
    tagger: TaggerArtifact, data: DatasetArtifact, rule: dict[str, Any], thresholds: list[float],
    training: dict[str, Any], device: str, chosen_from: bool = True,
) -> WordCurves:  # fmt: skip
    """Run a tagger with words that leave, at every threshold, on test.

    Args:
        rule: name, and the fields of `WindowRule` but the threshold; `control` deals the exits at random.
        chosen_from: on validation as well, so that `best_words` can choose.
    """
    import torch

    from paperflows.components.early_exit.storage import load_tagger
    from paperflows.components.early_exit.token_exit import WindowRule
    from paperflows.components.early_exit.word_curves import sweep_words
    from paperflows.components.early_exit.words import WordTable
    from paperflows.components.training.device import bf16_is_fast

    model, tokenizer, labels = load_tagger(open_artifact(tagger))
    model.to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    fields = {key: value for key, value in rule.items() if key not in ("name", "control")}
    rules = [WindowRule(threshold, **fields) for threshold in thresholds]
    points = {}
    for split in ("validation", "test") if chosen_from else ("test",):
        words = WordTable(
            _sample(data, split, training[LIMITS[split]]), tokenizer, labels, max_length=training["max_length"]
        )
        curve = sweep_words(
            model, words, rules, fallback=tagger["fallback"], bf16=bf16_is_fast(device), control=rule.get("control")
        )
        points[split] = store_curves({data["name"]: curve})
    return WordCurves(**points["test"], validation=points["validation"]["points"] if chosen_from else {})


@cached_task(name="trace_sentences", task_run_name="trace_sentences-{data[name]}")
def trace_sentences(
    tagger: TaggerArtifact, data: DatasetArtifact, training: dict[str, Any], device: str
) -> list[WordCurves]:
    """SENTEE on validation and on test by the highest and by the mean uncertainty of a sentence, a curve each.

    One full pass is replayed at a hundred thresholds, quantiles of what validation shows.
    """
    import torch

    from paperflows.components.early_exit.self_sampling import stored_exits
    from paperflows.components.early_exit.storage import load_tagger
    from paperflows.components.early_exit.word_curves import replay_sentences, sentence_rules
    from paperflows.components.early_exit.words import WordTable
    from paperflows.components.training.device import bf16_is_fast

    model, tokenizer, labels = load_tagger(open_artifact(tagger))
    model.to("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    seen = {}
    for split, limit in LIMITS.items():
        words = WordTable(_sample(data, split, training[limit]), tokenizer, labels, max_length=training["max_length"])
        seen[split] = stored_exits(model, words, bf16=bf16_is_fast(device)), words
    found = []
    for mean in (False, True):
        rules = sentence_rules(*seen["validation"], mean=mean)
        points = {
            split: store_curves(
                {
                    data["name"]: replay_sentences(
                        *some, rules, width=model.encoder.width, inner=model.encoder.inner, fallback=tagger["fallback"]
                    )
                }
            )
            for split, some in seen.items()
        }
        found.append(WordCurves(**points["test"], validation=points["validation"]["points"]))
    return found


@cached_task(name="best_words")
def best_words(candidates: list[list[WordCurves]], budgets: dict[str, float]) -> AtBudget:
    """Outputs on test at a budget of the rule that validation prefers there.

    A rule that is dearer than the budget at all its points on validation is not chosen while another one is not; where
    none reaches it the cheapest is taken, and `costs` says what it spends.

    Args:
        candidates: for each dataset the curves of the rules to choose from.
        budgets: dataset -> share of the full FLOPs.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from paperflows.components.evaluation.tradeoff import mixture
    from paperflows.tasks.tradeoff import CURVE

    outputs, costs = {}, {}
    for curves in candidates:
        (name,) = curves[0]["points"]
        budget = budgets[name]

        def cheapest(curve: WordCurves, name: str = name) -> float:
            return min(p[0] for p in curve["validation"][name])

        def on_validation(curve: WordCurves, name: str = name, budget: float = budget) -> float:
            points = curve["validation"][name]
            return float(mixture([p[0] for p in points], budget) @ np.array([p[1] for p in points]))

        best = max([c for c in curves if cheapest(c) <= budget] or [min(curves, key=cheapest)], key=on_validation)
        spent = [p[0] for p in best["points"][name]]
        weights = mixture(spent, budget)
        costs[name] = float(weights @ np.array(spent))
        outputs[name] = np.tensordot(weights, load_file(open_artifact(best) / CURVE)[name], axes=1)
    with new_artifact() as (folder, artifact):
        save_file(outputs, folder / OUTPUTS)
    return AtBudget(**artifact, costs=costs)


@cached_task(name="time_words")
def time_words(
    tagger: TaggerArtifact, data: DatasetArtifact, rule: dict[str, Any], budget: float, curve: WordCurves,
    timing: dict[str, Any], device: str,
) -> dict[str, Any]:  # fmt: skip
    """Seconds of the plain full tagger and of the run in which words leave, and whether masking says the same.

    Args:
        curve: of this rule; its dearest threshold within `budget` on validation is taken.
    """
    import numpy as np
    import torch

    from paperflows.components.early_exit.sentences import of_length
    from paperflows.components.early_exit.storage import load_tagger
    from paperflows.components.early_exit.token_exit import WindowRule, run_words
    from paperflows.components.early_exit.word_curves import full_flops, word_flops
    from paperflows.components.early_exit.words import WordTable, of_first_pieces

    model, tokenizer, labels = load_tagger(open_artifact(tagger))
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    model.to(place)
    points = sorted(curve["validation"][data["name"]])
    threshold = next((p[2] for p in reversed(points) if p[0] <= budget), points[0][2])
    window = WindowRule(threshold, **{k: v for k, v in rule.items() if k not in ("name", "control")})
    words = WordTable(_sample(data, "test", 10**9), tokenizer, labels, max_length=timing["max_length"])
    chosen = of_length(words.table.lengths, timing["texts"], timing["shortest"], timing["longest"])
    sizes: dict[str, Any] = {"width": model.encoder.width, "inner": model.encoder.inner}
    whole = full_flops(words, depth=model.encoder.depth, **sizes)
    found: dict[str, Any] = {"texts": len(chosen), "mean_tokens": float(words.table.lengths[chosen].mean())}

    @torch.inference_mode()
    def plain(batch: Any) -> Any:
        hidden = model.encoder.encoder(input_ids=batch["tokens"], attention_mask=batch["mask"]).last_hidden_state
        return model.exits[-1](of_first_pieces(hidden, batch["first"])).argmax(-1)

    def early(batch: Any) -> Any:
        return run_words(model, batch, window)

    for size in timing["batch_sizes"]:
        taken = chosen if size > 1 else chosen[::4]
        batches, spent, different = [], 0.0, 0
        for at in range(0, len(taken), size):
            rows = taken[at : at + size]
            batch = {k: v.to(place) if torch.is_tensor(v) else v for k, v in words.batch(rows).items()}
            tags, _, pieces = early(batch)
            reference, _, _ = run_words(model, batch, window, masked=True)
            different += int(((tags != reference) & batch["real"]).sum())
            spent += float(word_flops(pieces, batch, words, rows, **sizes).sum())
            batches.append((batch,))
        times = store_times(
            data["name"], {"full": plain, "early": early}, batches, timing["repeats"], place.type == "cuda"
        )
        gain = float(np.sum(whole[taken]) / spent)
        found[f"batch{size}"] = {**times, "flops_speedup": gain, "different": different}
    return found


def _sample(data: DatasetArtifact, split: str, limit: int) -> Any:
    from paperflows.components.early_exit.sentences import sample

    return sample(read_split(data, split), limit, seed=0)
