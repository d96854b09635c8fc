"""Progressive-hint prompting: the questions asked again, with the answers so far as hints."""

import json
import shutil
from contextlib import ExitStack

from paperflows.components.errors import ServiceError
from paperflows.tasks.annotators import Annotator, open_client
from paperflows.tasks.chains import Pool, SampledArtifact
from paperflows.tasks.data import read_split
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.reasoning import ChoicesArtifact, store_choices


class HintedArtifact(ChoicesArtifact):
    """`chains` counts the answers to a question, the first one too. Also `hints.jsonl`, a line a question, the
    completions as they can be replayed (`hints.completions.jsonl`), and the counters of the client.
    """

    usage: dict[str, float]


@cached_task(name="ask_with_hints", retries=2, retry_on=(ServiceError,))
def ask_with_hints(
    dataset: SampledArtifact, pool: Pool, sampler: Annotator, temperature: float, device: str
) -> HintedArtifact:
    """The sampler's model asked again after its first chain of each question, until two answers agree."""
    import numpy as np

    from paperflows.components.reasoning.answers import is_correct
    from paperflows.components.reasoning.progressive_hints import ask_again, chosen
    from paperflows.components.reasoning.recorded import read_questions

    questions = read_questions(read_split(dataset, "test"), **pool.filters)
    work = state_folder() / "checkpoints" / current_key()
    with ExitStack() as opened:
        client = open_client(sampler, "hints", device, work, opened)
        found = ask_again(
            client, model=sampler.model, questions=[q.text for q in questions],
            first=[q.chains[0].answer for q in questions], kind=pool.answer, temperature=temperature,
        )  # fmt: skip
        usage = {name: float(value) for name, value in client.usage.counters.items()}
    right = [float(is_correct(chosen(a), q.gold, pool.answer)) for a, q in zip(found, questions, strict=True)]
    lines = [
        {"question": q.text, "gold": q.gold, "right": r, "answers": a}
        for q, r, a in zip(questions, right, found, strict=True)
    ]
    trace = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    said = {path.name: path.read_text(encoding="utf-8") for path in work.glob("*.completions.jsonl")}
    table = np.array([[r, float(len(a))] for r, a in zip(right, found, strict=True)])
    choices = store_choices(dataset["name"], table, {"hints.jsonl": trace, **said})
    shutil.rmtree(work, ignore_errors=True)
    return HintedArtifact(**choices, usage=usage)
