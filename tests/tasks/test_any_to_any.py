"""What is too long to be trained on, and what becomes of answers that hold no whole medium."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from paperflows.components.errors import InputError
from paperflows.components.models.tiny_decoder import tiny_decoder
from paperflows.components.multimodal import generation
from paperflows.components.multimodal.vocabulary import Vocabulary, train_text_tokenizer
from paperflows.tasks import aligning, any_to_any
from paperflows.tasks.aligning import Mixture, align, train_text_lm
from paperflows.tasks.any_to_any import answer_across, answer_pairs
from paperflows.tasks.store import OUTPUTS, new_artifact, open_artifact

MIXTURE = Mixture(modalities=("picture", "speech"))
KINDS = {
    "picture": SimpleNamespace(n_ids=6, exact=4, begin="<soim>", end="<eoim>"),
    "speech": SimpleNamespace(n_ids=5, exact=None, begin="<sosp>", end="<eosp>"),
}
DECODING = {"text": {"longest": 8}, "picture": {"longest": 2}, "speech": {"longest": 200}}


def stored(file, rows, **more):
    with new_artifact() as (folder, artifact):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**artifact, **more}


@pytest.fixture
def model(in_project, monkeypatch):
    """A vocabulary of pictures and speech; its decoder is what every task opens, and trainings only look at batches."""
    vocabulary = Vocabulary(train_text_tokenizer(["seven eight draw the number"] * 9, size=300), KINDS)
    network = tiny_decoder(vocabulary=vocabulary.size, width=16, layers=1, heads=2, hidden=32, positions=256, seed=0)
    batches = []

    def fit(name, settings, model, batch_at, *more):
        batches.extend(batch_at(step) for step in range(20))
        return SimpleNamespace(history=[])

    monkeypatch.setattr(aligning, "fit", fit)
    monkeypatch.setattr(aligning, "_start", lambda *_: (network, vocabulary))
    monkeypatch.setattr(any_to_any, "open_model", lambda *_: (network.eval(), vocabulary))
    monkeypatch.setattr(any_to_any, "open_tokenizer", lambda _: SimpleNamespace(decode=np.asarray))
    judge = SimpleNamespace(name=lambda signals: ["seven" if len(s) else "" for s in signals], features=np.stack)
    monkeypatch.setattr(any_to_any, "fit_judge", lambda *_: judge)
    return SimpleNamespace(vocabulary=vocabulary, batches=batches)


TRAINING = {
    "steps": 1, "batch_size": 8, "learning_rate": 1e-3, "weighting": "sqrt", "prompt": 0.1, "dropped": 0.1,
}  # fmt: skip


def aligned(lengths, row):
    speech = stored("train.jsonl", [{"caption": "seven", "ids": [1] * length} for length in lengths], modality="speech")
    mixture = Mixture(modalities=("speech",))
    return align.fn("joint", mixture, "tiny", None, [speech], {**TRAINING, "row": row}, 0, "cpu")


def test_pairs_longer_than_a_row_are_left_out_and_counted(model):
    done = aligned([3, 250, 9, 251], row=200)
    assert done["too_long"] == {"speech_to_text": 2, "text_to_speech": 2}
    most = max(int(batch["positions"].max()) for batch in model.batches)
    assert 9 < most < 200, "what fits is trained on"
    with pytest.raises(InputError, match=r"speech_to_text: no pair fits in a row of 100 tokens.*\(alignment\.row\)"):
        aligned([250], row=100)


SIZES = {"vocabulary": 300, "width": 16, "layers": 1, "heads": 2, "hidden": 32, "positions": 64}


def test_texts_longer_than_the_positions_are_left_out_and_counted(model):
    training = {"texts": 9, "steps": 1, "batch_size": 4, "learning_rate": 1e-3}
    texts = stored("train.jsonl", [{"text": "seven"}, {"text": "1 2 3 4 5 " * 20}], name="plain")
    assert train_text_lm.fn(texts, [], SIZES, training, 0, "cpu")["too_long"] == {"text": 1}
    texts = stored("train.jsonl", [{"text": "1 2 3 4 5 " * 20}], name="plain")
    with pytest.raises(InputError, match=r"'plain': no text fits in 64 tokens \(sizes\.positions\)"):
        train_text_lm.fn(texts, [], SIZES, training, 0, "cpu")


def across(model, monkeypatch, way, messages):
    """Answers that are always `messages`, by the wanted modality; and the tokens that they might have had."""
    room = {}

    def answer(network, vocabulary, prompts, settings, seeds, *, start, unconditional, longest):
        wanted = "speech" if "picture" in room else "picture"
        room[wanted] = longest
        return [messages[wanted]] * len(prompts)

    monkeypatch.setattr(generation, "answer", answer)
    rows = [{"caption": word, "ids": [1, 2, 3, 4]} for word in ("seven", "eight", "seven", "seven")]
    tokenized = [stored("test.jsonl", rows, modality=modality) for modality in KINDS]
    topics = stored("topics.jsonl", [{"topic": "numbers on doors", "held_out": True}])
    media = [{"modality": modality} for modality in KINDS]
    made = answer_across.fn(
        {"name": "joint"}, MIXTURE, tokenized, media, topics, ["seven", "eight"], DECODING, way, 9, 0, "cpu"
    )
    return made["measures"], load_file(open_artifact(made["outputs"]) / OUTPUTS), room


@pytest.mark.parametrize(("way", "words"), [("free", 16), ("direct", 0)])
def test_answers_have_room_for_the_medium_and_what_is_cut_is_wrong(model, monkeypatch, way, words):
    whole = {m: model.vocabulary.block(m, [1, 2, 3, 4]) for m in KINDS}
    measures, outputs, room = across(model, monkeypatch, way, whole)
    assert room == {"picture": words + 5, "speech": words + 201}
    assert outputs["speech_to_picture"].tolist() == outputs["picture_to_speech"].tolist() == [1, 0, 1, 1]
    assert measures["written.speech_to_picture"] == 1
    measures, outputs, _ = across(model, monkeypatch, way, {m: ids[:-1] for m, ids in whole.items()})
    assert outputs["speech_to_picture"].tolist() == outputs["picture_to_speech"].tolist() == [0] * 4
    assert measures["written.speech_to_picture"] == measures["written.picture_to_speech"] == 0


def pairs(*words):
    rows = [{"caption": word, "ids": [1, 2, 3, 4]} for word in words]
    tokenized = [stored("test.jsonl", rows, modality="picture")]
    media = [{"modality": "picture", "rows": {"test": len(rows)}}]
    made = answer_pairs.fn(
        {"name": "joint"}, Mixture(modalities=("picture",)), tokenized, media, DECODING, 9, 0, "cpu",
        ["text_to_picture"],
    )  # fmt: skip
    return made["measures"]


def test_a_picture_of_more_patches_than_the_longest_block_is_written_whole(model):
    measures = pairs("seven", "eight")
    assert measures["written.text_to_picture"] == 1 and measures["accuracy.text_to_picture"] == 0.5


def test_where_nothing_is_written_every_answer_is_wrong(model, monkeypatch):
    monkeypatch.setattr(any_to_any, "to_media", lambda *_: [[], []])
    measures = pairs("seven", "eight")
    assert set(measures.values()) == {0.0} and len(measures) == 3
