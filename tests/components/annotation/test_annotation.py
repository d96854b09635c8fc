import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperflows.components.annotation.filtering import Annotated, hard_label, post_process
from paperflows.components.annotation.judges import EncoderJudge
from paperflows.components.annotation.masking import MASK, mask_sentence, masked_positions
from paperflows.components.annotation.shards import Shards


@pytest.mark.parametrize(
    ("words", "rate", "count"), [(10, 0.3, 3), (10, 0.0, 0), (3, 0.1, 1), (1, 0.8, 1), (5, 0.5, 2)]
)
def test_share_of_masked_words(words, rate, count):
    assert len(masked_positions(words, rate=rate, seed=0)) == count


@given(st.lists(st.text(st.characters(categories=["L"]), min_size=1), min_size=1, max_size=20), st.floats(0.01, 0.99))
def test_other_words_stay_in_place(words, rate):
    masked = mask_sentence(" ".join(words), rate=rate, seed=1).split()
    assert len(masked) == len(" ".join(words).split())
    assert all(m in (MASK, w) for m, w in zip(masked, " ".join(words).split(), strict=True))


def test_masks_are_the_same_in_every_process_and_differ_by_seed():
    assert mask_sentence("a b c d e f", rate=0.5, seed=0) == mask_sentence("a b c d e f", rate=0.5, seed=0)
    assert len({mask_sentence("a b c d e f g h", rate=0.5, seed=seed) for seed in range(20)}) > 5


def test_rate_of_one_is_refused():
    with pytest.raises(ValueError, match="outside"):
        mask_sentence("a b", rate=1.0, seed=0)


def test_post_processing_by_hand():
    pairs = [
        Annotated("a b", "a c", 0.7),
        Annotated("a b", "A  C", 0.6),  # the same pair again, but for case and space
        Annotated("a b", " A b ", 0.9),  # the sentence itself
        Annotated("c d", "", 0.5),
        Annotated("c d", None, None),
        Annotated("e f", "e g", None),  # the judge's reply could not be read
        Annotated("e f", "x y", 0.1),
    ]
    rows, counts = post_process(pairs, identity_share=0.5, random_share=1.0, seed=0)
    written = [r for r in rows if r["source"] == "written"]
    assert [(r["text_pair"], r["score"]) for r in written] == [("a c", 0.7), ("x y", 0.1)]
    wanted = {"written": 7, "empty": 2, "unparsable": 1, "identical": 1, "duplicate": 1, "kept": 2}
    assert counts == {**wanted, "identity": 1, "random": 2}
    assert all(r["text"] == r["text_pair"] and r["score"] == 1.0 for r in rows if r["source"] == "identity")
    assert all(r["text"] != r["text_pair"] and r["score"] == 0.0 for r in rows if r["source"] == "random")


@pytest.mark.parametrize(
    ("score", "label"), [(0.0, 0.0), (0.34, 0.0), (0.35, 0.5), (0.74, 0.5), (0.75, 1.0), (1.0, 1.0)]
)
def test_hard_labels(score, label):
    assert hard_label(score, 0.35, 0.75) == label


def test_encoder_judge_is_the_cosine_cut_at_zero():
    vectors = {"x": [1.0, 0.0], "y": [3.0, 4.0], "z": [-2.0, 0.0]}
    judge = EncoderJudge(lambda texts: torch.tensor([vectors[t] for t in texts]))
    scores = [j.score for j in judge.score([("x", "y"), ("x", "z"), ("y", "y")])]
    assert scores == pytest.approx([0.6, 0.0, 1.0], abs=1e-6)
    assert judge.score([]) == []


def test_shards_continue_after_a_stop_and_redo_damaged_ones(tmp_path, caplog):
    done = []

    def work(number, jobs):
        if number == 2 and len(done) == 2:
            raise KeyboardInterrupt
        done.append(number)
        return [{"job": job, "text": "ä\u2028"} for job in jobs]

    jobs = list(range(10))
    with pytest.raises(KeyboardInterrupt):
        Shards(tmp_path, size=3).run(jobs, work)
    assert done == [0, 1]
    done.append(None)
    rows = Shards(tmp_path, size=3).run(jobs, work)
    assert done == [0, 1, None, 2, 3]
    assert [row["job"] for row in rows] == jobs
    first = tmp_path / "shard-000000.jsonl"
    first.write_text(first.read_text(encoding="utf-8").replace('"job": 1', '"job": 7'), encoding="utf-8")
    assert [row["job"] for row in Shards(tmp_path, size=3).run(jobs, work)] == jobs
    assert done[-1] == 0 and "damaged" in caplog.text


def test_recorded_prompts_hold_what_they_are_given():
    from paperflows.components.annotation.llm import PROMPTS
    from paperflows.components.llm.prompts import render

    text, digest = render(PROMPTS / "judge.jinja", first="{{ evil }}", second="b")
    assert "{{ evil }}" in text and len(digest) == 16, "values are data, never templates"
    assert json.loads(text[text.index('{"') :]).keys() == {"explanation", "score"}
