import os
from functools import cache
from pathlib import Path

import pytest

from paperflows.components.data.sources import load
from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_tokenizer
from paperflows.components.models.tiny_bert import train_wordpiece
from paperflows.components.prompts.reading import form_of, read
from paperflows.flows.mp2 import Mp2, judge_reader
from paperflows.flows.params import load_parameters

ROOT = Path(__file__).parent.parent.parent
DATA = os.environ.get("PAPERFLOWS_DATA", "")
LINES = load_parameters(Mp2, "mp2", ROOT).datasets.folder


@pytest.mark.parametrize("key, value", [("router_calls", 45), ("prompt_calls", 55)])
def test_calls_that_are_no_whole_populations_are_refused(key, value):
    with pytest.raises(InputError, match=f"{key}: {value} is no multiple of the population, 10"):
        load_parameters(Mp2, "mp2", ROOT, overrides=[f"prompting.{key}={value}"])


@pytest.mark.parametrize("profile", ["laptop", "smoke", "study", "paper"])
def test_a_text_fits_the_positions_of_an_encoder_trained_in_the_flow(profile):
    params = load_parameters(Mp2, "mp2", ROOT, profile=profile)
    assert params.prompting.max_length <= params.characters.max_length or profile == "paper"
    assert profile != "paper" or params.data == "hub", "the built-in corpora are no paper's data"


def test_a_reader_at_chance_is_said():
    known = {"name": "a", "accuracy": 0.70, "majority": 0.60, "chance": 0.50, "examples": 200}
    chance = {"name": "b", "accuracy": 0.50, "majority": 0.20, "chance": 0.50, "examples": 200}
    metrics = {}
    assert judge_reader(metrics, "line", [known, chance]) == []
    assert metrics["line.upstream.gain"] == pytest.approx(0.05) and metrics["line.upstream.b.chance"] == 0.5
    (note,) = judge_reader({}, "line", [{**known, "accuracy": 0.62}, chance])
    assert "+1.0 points" in note and "say nothing about prompts" in note
    # 0.2 is above three standard errors of 200 examples, 0.106
    (note,) = judge_reader({}, "line", [{**known, "accuracy": 0.80}, {**chance, "accuracy": 0.30}])
    assert "+0.0 points" in note and "reads a alone" in note


@cache
def characters():
    """One token a character at least, as of the encoder that the flow trains on much more text."""
    texts = [row["text"] for name in LINES["chinese"].upstream for row in load(DATA, name).splits["validation"]]
    return train_wordpiece(texts, vocab_size=6000, characters=5000)


@pytest.mark.skipif(not DATA, reason="PAPERFLOWS_DATA names no folder of datasets")
@pytest.mark.parametrize(
    "line, name", [(line, name) for line, how in LINES.items() for name in (*how.upstream, *how.downstream)]
)
def test_every_question_with_its_longest_options_leaves_room_for_a_text(line, name):
    data, p = load(DATA, name), load_parameters(Mp2, "mp2", ROOT).prompting
    rows = [row for some in data.splits.values() for row in some]
    how, form = LINES[line], form_of(name)
    tokenizer = characters() if how.encoder == "characters" else load_tokenizer(how.encoder)
    if "choices" in rows[0]:
        tried, labels = [max(rows, key=lambda row: sum(map(len, row["choices"])))], []
    else:
        labels = sorted({str(row["label"]) for row in rows}, key=lambda label: -len(form.phrase(label)))[: p.options]
        tried = [{**row, "label": labels[0]} for row in rows[:20]]
    made = read(tried, form, tokenizer, labels=labels, options=p.options, max_length=p.max_length, seed=0)
    assert made.table.lengths.max() <= p.max_length
