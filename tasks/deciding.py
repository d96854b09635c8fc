"""When a model should look things up: UAR's heads, other deciders, the answers with each in the loop, and the time."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paperflows.components.errors import InputError
from paperflows.tasks.closed_book import KnowledgeArtifact, open_model
from paperflows.tasks.corpora import CorpusArtifact, IndexArtifact, read_passages, shown
from paperflows.tasks.policy import cached_task
from paperflows.tasks.prompted_decisions import PromptedArtifact
from paperflows.tasks.requests import RequestsArtifact, read_requests
from paperflows.tasks.store import OUTPUTS, Artifact, new_artifact, open_artifact
from paperflows.tasks.training import fit

SINGLE = ("intent", "knowledge", "time", "unknown")


class Heads(BaseModel):
    """The training of UAR's linear heads, and of the other deciders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Requests a step")
    learning_rate: float = Field(gt=0, description="Of the heads")
    neighbours: tuple[int, ...] = Field(min_length=1, description="Numbers tried for SKR, chosen on validation")


@cached_task(name="train_deciders", task_run_name="train_deciders-seed{seed}")
def train_deciders(
    requests: RequestsArtifact, knowledge: KnowledgeArtifact, prompted: PromptedArtifact | None, settings: Heads,
    most: int, seed: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Train UAR's heads on the training requests, set the baselines on validation, and decide every test request.

    Args:
        prompted: decisions of a language model, where one was asked.
        most: requests of a balanced mix.

    Returns:
        `right`: method -> artifact with whether each request of the mixes `test` and `unseen` is decided rightly;
        `accuracy`: method and mix -> share; `heads`: the heads; `decisions`: artifact with every request's decision by
        every method.
    """
    import numpy as np
    import torch
    from safetensors.numpy import load_file, save_file

    from paperflows.components.retrieval import criteria
    from paperflows.components.retrieval.requests import SHOULD_RETRIEVE, balanced, cell_of
    from paperflows.components.training.batching import Batches

    rows = read_requests(requests)
    known = load_file(open_artifact(knowledge) / "knowledge.safetensors")
    cells = [cell_of(row, bool(right)) for row, right in zip(rows, known["right"], strict=True)]
    gold = np.array([SHOULD_RETRIEVE[cell] for cell in cells])
    part = np.array([row["part"] for row in rows])
    labels = _labels(rows, known["right"], gold)
    states = torch.from_numpy(known["states"])
    train = np.flatnonzero(part == "train")
    heads = criteria.CriteriaHeads(states[train].mean(0), states[train].std(0))
    weights = torch.from_numpy(criteria.class_weights(labels[train]))
    batches, targets = Batches(batch_size=settings.batch_size, seed=seed, n=len(train)), torch.from_numpy(labels)

    def batch_at(step: int) -> dict[str, Any]:
        some = torch.from_numpy(train[batches.at(step)])
        return {"states": states[some], "labels": targets[some], "weights": weights}

    done = fit(
        f"heads-seed{seed}", settings.model_dump(), heads, batch_at,
        lambda m, b: criteria.heads_loss(m(b["states"]), b["labels"], b["weights"]),
        settings.steps, settings.learning_rate, seed, device,
    )  # fmt: skip
    heads.cpu()
    with torch.inference_mode():
        said = criteria.flags(heads(states))
    cell_of_row = np.array(cells)
    mixes = {}
    for name in ("validation", "test", "unseen"):
        places = np.flatnonzero(part == name)
        mixes[name] = places[balanced(cell_of_row[places].tolist(), most=most, seed=0)]
    if not len(mixes["validation"]):
        raise InputError(
            "thresholds and numbers of neighbours are set on validation requests, of which some must want a retrieval "
            "and some not: give a pool a validation split (splits or divide)"
        )
    methods = {
        "uar": criteria.decide(*(said[name] for name in criteria.CRITERIA)),
        "always": np.ones(len(rows), bool),
        "never": np.zeros(len(rows), bool),
        "direct": said["retrieve"],
        **{name: said[name] for name in SINGLE},
        **_by_confidence(known, gold, mixes["validation"]),
        **_by_neighbours(known, rows, train, gold, mixes["validation"], settings.neighbours),
    }
    if prompted:
        methods["prompt"] = load_file(open_artifact(prompted) / "prompt.safetensors")["retrieve"].astype(bool)
    mixes.pop("validation")
    mixes = {name: places for name, places in mixes.items() if len(places)}
    right: dict[str, Any] = {}
    for method, retrieve in methods.items():
        with new_artifact() as (folder, artifact):
            save_file({n: (retrieve[p] == gold[p]).astype(np.float64) for n, p in mixes.items()}, folder / OUTPUTS)
        right[method] = artifact
    with new_artifact() as (folder, kept):
        about = {name: knowledge["settings"][name] for name in ("kind", "model")}
        criteria.save_heads(heads, folder / "heads.safetensors", states=about)
    with new_artifact() as (folder, decisions):
        save_file({m: r.astype(np.uint8) for m, r in methods.items()}, folder / "decisions.safetensors")
    accuracy = {f"{m}.{n}": float((methods[m][p] == gold[p]).mean()) for m in methods for n, p in mixes.items()}
    for place, name in enumerate(criteria.CRITERIA):
        for mix in ("test", "unseen"):
            asked = (part == mix) & (labels[:, place] >= 0)
            for value in (0, 1):
                one = asked & (labels[:, place] == value)
                if one.any():
                    found = float((said[name][one] == bool(value)).mean())
                    accuracy[f"criterion.{name}.{'yes' if value else 'no'}.{mix}"] = found
    for mix, places in mixes.items():
        for cell in SHOULD_RETRIEVE:
            inside = places[cell_of_row[places] == cell]
            if len(inside):
                accuracy[f"uar_by_cell.{cell}.{mix}"] = float((methods["uar"][inside] == gold[inside]).mean())
    sizes = {name: len(places) for name, places in mixes.items()}
    return {
        "right": right, "accuracy": accuracy, "heads": kept, "decisions": decisions, "sizes": sizes,
        "history": done.history,
    }  # fmt: skip


def _labels(rows: list[dict[str, Any]], known: Any, gold: Any) -> Any:
    """(N, 5) labels of intent, knowledge, time, unknown and the decision; -1 where a criterion is not asked."""
    import numpy as np

    found = np.full((len(rows), 5), -1, np.int64)
    for place, row in enumerate(rows):
        found[place, :2] = row["intent"], row["knowledge"]
        if row["time"] is not None:
            found[place, 2] = row["time"]
        if row["kind"] == "facts":
            found[place, 3] = not known[place]
        found[place, 4] = gold[place]
    return found


def _by_confidence(known: Any, gold: Any, validation: Any) -> dict[str, Any]:
    """FLARE: retrieve when the answer's probability is below a threshold, which validation sets."""
    import numpy as np

    from paperflows.components.retrieval.criteria import best_threshold

    doubt = -np.asarray(known["confidence"], np.float64)
    return {"flare": doubt > best_threshold(doubt[validation], gold[validation])}


def _by_neighbours(known: Any, rows: Any, train: Any, gold: Any, validation: Any, tried: tuple[int, ...]) -> Any:
    """SKR: retrieve when most of the nearest training questions are unknown; validation chooses how many."""
    import numpy as np

    from paperflows.components.retrieval.criteria import knn_unknown

    facts = train[[rows[i]["kind"] == "facts" for i in train]]
    found = {
        k: knn_unknown(known["states"], known["states"][facts], ~known["right"][facts].astype(bool), k) > 0.5
        for k in tried
        if k <= len(facts)
    }
    best = max(found, key=lambda k: np.mean(found[k][validation] == gold[validation]))
    return {"skr": found[best]}


@cached_task(name="read_passages_for_requests")
def answer_by_retrieval(
    requests: RequestsArtifact, corpus: CorpusArtifact, index: IndexArtifact, reading: int, device: str
) -> Artifact:
    """Answer every factual test request whose passage is in the corpus from what is retrieved for it.

    The reader says the sentence nearest to the question among the first `reading` passages.

    Returns:
        `answers.safetensors`: places (M,) of the requests, right (M,), found (M,) whether a gold passage was there.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.retrieval.chunking import sentences
    from paperflows.components.retrieval.closed_book import holds_answer
    from paperflows.components.retrieval.dense import encode, open_dense, passage_encoder

    rows, passages = read_requests(requests), read_passages(corpus)
    there = {passage["place"] for passage in passages}
    asked = [
        i for i, row in enumerate(rows)
        if row["part"] in ("test", "unseen") and row["passages"] and there.issuperset(row["passages"])
    ]  # fmt: skip
    if not asked:
        raise InputError("no factual request of the parts test and unseen has its passages in the corpus")
    encoder = passage_encoder(index["model"], device=device)
    queries = encode(encoder, [rows[i]["bare"] for i in asked], prefix=index["prefixes"]["query"])
    _, ids = open_dense(open_artifact(index) / "dense.faiss").search(queries, reading)
    said: list[list[str]] = [
        [shown({**passages[j], "text": s}) for j in found if j >= 0 for s in sentences(passages[j]["text"])]
        for found in ids
    ]
    flat = encode(encoder, [text for some in said for text in some], prefix=index["prefixes"]["passage"])
    ends = np.cumsum([len(some) for some in said])
    nearest = [
        int((flat[end - len(some) : end] @ q).argmax()) for some, end, q in zip(said, ends, queries, strict=True)
    ]
    right = [holds_answer(some[n], rows[i]["answers"]) for some, n, i in zip(said, nearest, asked, strict=True)]
    hit = [
        any(j >= 0 and passages[j]["place"] in rows[i]["passages"] for j in found)
        for found, i in zip(ids, asked, strict=True)
    ]
    with new_artifact() as (folder, artifact):
        arrays = {"places": np.array(asked), "right": np.array(right, float), "found": np.array(hit, float)}
        save_file(arrays, folder / "answers.safetensors")
    return artifact


@cached_task(name="answer_as_decided")
def answer_as_decided(knowledge: KnowledgeArtifact, answers: Artifact, decisions: Artifact) -> dict[str, Any]:
    """Answers with each decider in the loop: from the passages where it retrieves, from memory where not.

    Returns:
        `right` and `retrieved`: method -> artifact over the questions; `measures`.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

    read = load_file(open_artifact(answers) / "answers.safetensors")
    memory = load_file(open_artifact(knowledge) / "knowledge.safetensors")["right"][read["places"]]
    chosen = load_file(open_artifact(decisions) / "decisions.safetensors")
    found: dict[str, Any] = {"right": {}, "retrieved": {}, "measures": {"found": float(read["found"].mean())}}
    for method, every in chosen.items():
        retrieve = every[read["places"]].astype(bool)
        right = np.where(retrieve, read["right"], memory)
        for what, values in (("right", right), ("retrieved", retrieve)):
            with new_artifact() as (folder, artifact):
                save_file({"answers": values.astype(np.float64)}, folder / OUTPUTS)
            found[what][method] = artifact
            found["measures"][f"{what}.{method}"] = float(values.mean())
    return found


@cached_task(name="time_decisions")
def time_decisions(
    requests: RequestsArtifact, knowledge: KnowledgeArtifact, heads: Artifact, texts: int, repeats: int, device: str
) -> dict[str, Any]:
    """Milliseconds of one decision, and of what it adds to the model's own pass: heads and pass timed in turns.

    Returns:
        `heads` and `encoder`: artifacts of seconds by repeat over `texts` single requests; `milliseconds` of a whole
        decision, text to yes or no.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.evaluation.timing import time_interleaved
    from paperflows.components.retrieval.criteria import RetrievalDecider, load_heads

    encode = open_model(knowledge["settings"], device)
    decider = RetrievalDecider(encode, load_heads(open_artifact(heads) / "heads.safetensors"))
    some = [row["text"] for row in read_requests(requests) if row["part"] == "test"][:texts]
    states = [encode([text])[0] for text in some]
    seconds = time_interleaved(
        {
            "heads": lambda: [decider.margins(state) for state in states],
            "encoder": lambda: [encode([text]) for text in some],
            "decide": lambda: [decider.decide(text) for text in some],
        },
        repeats=repeats,
    )
    found: dict[str, Any] = {"milliseconds": 1000 * float(np.median(seconds["decide"])) / len(some)}
    for name in ("heads", "encoder"):
        with new_artifact() as (folder, artifact):
            save_file({"seconds": seconds[name] / len(some)}, folder / OUTPUTS)
        found[name] = artifact
    return found
