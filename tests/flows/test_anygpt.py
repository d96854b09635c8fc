from pathlib import Path

import pytest

from paperflows.components.errors import InputError
from paperflows.flows.anygpt import Anygpt, across_claims
from paperflows.flows.params import load_parameters, validate

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("decoding", {"text": {"longest": 8}, "picture": {"longest": 8}}), "how music, speech is sampled"),
        (("models", {"other": {"modalities": ["picture"]}}), "joint cannot be left out"),
    ],
)
def test_what_would_end_a_run_late_is_refused_first(override, message):
    values = load_parameters(Anygpt, "anygpt", ROOT).model_dump()
    name, value = override
    with pytest.raises(InputError, match=message):
        validate(Anygpt, {**values, name: value}, "anygpt")


def answered(name, **measures):
    return [{"outputs": {"path": name, "sha256": name}, "measures": measures}]


def test_instructions_are_claimed_over_the_better_of_free_and_forced_answers():
    across = {
        "tuned": answered("tuned", speech_to_picture=0.7, picture_to_speech=0.6),
        "cascade": answered("cascade", speech_to_picture=0.9, picture_to_speech=0.8),
        "aligned": answered("aligned", speech_to_picture=0.0, picture_to_speech=0.2),
        "direct": answered("direct", speech_to_picture=0.1, picture_to_speech=0.1),
    }
    claims = {claim.id: claim for claim in across_claims(across)}
    forced, free = claims["instructions_speech_to_picture"], claims["instructions_picture_to_speech"]
    assert forced.baseline[0]["sha256"] == "direct" and forced.baseline_name == "stage 1 only, forced"
    assert free.baseline[0]["sha256"] == "aligned" and free.baseline_name == "stage 1 only, free"
