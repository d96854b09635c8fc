"""`paperflows decide`: the decision of a run of `uar` as a service on this machine, until Ctrl-C."""

from pathlib import Path

import typer
import uvicorn

from paperflows.components.errors import InputError
from paperflows.components.ports import require_free
from paperflows.processes import HOST
from paperflows.tasks.environment import prepare


def serve_decisions(heads: Path, *, port: int, device: str) -> None:
    """Load the heads and the model whose states they read, say the address, and answer.

    Args:
        heads: the folder of the heads, or their file.

    Raises:
        InputError: no heads are there, or they do not say what they read.
        ServiceError: the port is taken.
    """
    prepare()
    path = heads / "heads.safetensors" if heads.is_dir() else heads
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the folder heads in the outputs of a run of uar")
    require_free(port)
    from paperflows.components.retrieval.criteria import RetrievalDecider, load_heads, states_of
    from paperflows.components.retrieval.service import decision_service
    from paperflows.tasks.closed_book import open_model

    states = states_of(path)
    if not {"kind", "model"} <= states.keys():
        raise InputError(f"{path} does not say which model's states it reads; run uar anew")
    decider = RetrievalDecider(open_model(states, device), load_heads(path))
    decider.decide("warm up")
    typer.echo(f'POST http://{HOST}:{port}/decide with {{"text": …}}; Ctrl-C stops')
    uvicorn.run(decision_service(decider), host=HOST, port=port, log_level="warning")
