"""Write completions down so that they can be replayed elsewhere."""

import json
from pathlib import Path
from typing import Any

from paperflows.components.llm.request import Completion, Request


class Recorder:
    """An observer of `LLM` that appends every good completion, from the cache or not, in the replay format."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, request: Request, completions: list[Completion]) -> None:
        """Append; failed ones are left out, so that a replay asks for them again and says so."""
        with self.path.open("a", encoding="utf-8") as file:
            for completion in completions:
                if completion.finish_reason != "error":
                    file.write(json.dumps(record(request, completion), ensure_ascii=False) + "\n")


def record(request: Request, completion: Completion) -> dict[str, Any]:
    """One line of the replay format."""
    kept = completion.model_dump(mode="json", exclude={"cached", "seconds", "error"})
    return {"request": request.identity(), "sample": completion.sample, "completion": kept}
