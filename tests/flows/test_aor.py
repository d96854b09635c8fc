from pathlib import Path

from paperflows.flows.aor import Aor, hint
from paperflows.flows.params import load_parameters

ROOT = Path(__file__).parent.parent.parent


def test_recorded_completions_are_not_asked_again():
    replay = "llm.sampler={kind: replay, replay_path: nowhere.jsonl}"
    params = load_parameters(Aor, "aor", ROOT, profile="smoke", overrides=[replay])
    assert hint(None, params, None, params.pools.builtin[0]) == {}
