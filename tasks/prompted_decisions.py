"""The decision whether to retrieve, of a language model that is asked for it."""

from contextlib import ExitStack
from typing import Any

from paperflows.components.errors import ServiceError
from paperflows.tasks.annotators import Annotator, open_client
from paperflows.tasks.environment import state_folder
from paperflows.tasks.policy import cached_task, current_key
from paperflows.tasks.requests import RequestsArtifact, read_requests
from paperflows.tasks.store import Artifact, new_artifact


class PromptedArtifact(Artifact):
    """`prompt.safetensors`: retrieve (N,) of every request; only those that are evaluated were asked for."""

    measures: dict[str, float]


@cached_task(name="ask_whether", retries=2, retry_on=(ServiceError,))
def ask_whether(requests: RequestsArtifact, llm: Annotator, device: str) -> PromptedArtifact:
    """Ask a language model whether to retrieve for each request of the parts test and unseen.

    A reply that cannot be read retrieves nothing; their share is in the measures.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from paperflows.components.retrieval.llm_decider import decide_by_prompt

    rows = read_requests(requests)
    asked = [place for place, row in enumerate(rows) if row["part"] in ("test", "unseen")]
    with ExitStack() as opened:
        client = open_client(llm, "decide", device, state_folder() / "checkpoints" / current_key(), opened)
        said = decide_by_prompt(client, model=llm.model, texts=[rows[place]["text"] for place in asked])
        usage: dict[str, Any] = dict(client.usage.counters)
    retrieve = np.zeros(len(rows), np.uint8)
    retrieve[asked] = [bool(one) for one in said]
    with new_artifact() as (folder, artifact):
        save_file({"retrieve": retrieve}, folder / "prompt.safetensors")
    measures = {f"llm.{name}": float(value) for name, value in usage.items()}
    measures["prompt.unreadable"] = sum(one is None for one in said) / max(1, len(said))
    return PromptedArtifact(**artifact, measures=measures)
