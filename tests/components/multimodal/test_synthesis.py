import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from paperflows.components.data.media import read_picture, read_wav, resample, write_png, write_wav
from paperflows.components.data.problems import DataError
from paperflows.components.errors import InputError
from paperflows.components.multimodal.captions import caption, diversity, facets
from paperflows.components.multimodal.conversations import (
    MODALITIES,
    Unparsable,
    combinations,
    parse_marked,
    scenarios,
    topics,
    write_conversation,
)
from paperflows.components.multimodal.conversion import Library, convert
from paperflows.components.multimodal.filters import BLOCK, distinct, near_duplicates, reject, texts_of
from paperflows.components.multimodal.judges import Judge

REPERTOIRE = {"picture": ["seven", "two"], "speech": ["seven", "two"], "music": ["2/4 in C"]}


def test_marked_descriptions():
    assert parse_marked("look <picture: seven> . say it") == [
        ("text", "look"),
        ("picture", "seven"),
        ("text", ". say it"),
    ]
    with pytest.raises(Unparsable, match="not closed"):
        parse_marked("look <picture: seven")
    with pytest.raises(Unparsable, match="no modality"):
        parse_marked("<smell: roses>")


NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.mark.parametrize(("things", "count"), [(NUMBERS, 15), (["cat", "dog"], 11), (["two", "four", "six"], 11)])
def test_combinations_are_covered_evenly_and_every_conversation_is_valid(things, count):
    made = scenarios(topics(), 150, MODALITIES[1:], things, seed=0)
    turns = Counter(turn for one in made for turn in one.turns)
    pairs = combinations(MODALITIES[1:], things)
    assert set(turns) == set(pairs) and max(turns.values()) - min(turns.values()) <= 1
    assert len(pairs) == count, "a tune stands beside pictures and recordings where all beats are among the words"
    assert (("music", "picture") in pairs) == (things is NUMBERS) and ("music", "music") in pairs
    repertoire = {m: set(things) for m in ("picture", "speech")}
    repertoire["music"] = {f"{meter} in C" for meter in ("2/4", "3/4", "4/4", "6/8")}
    rows = [
        {"turns": write_conversation(one, things, ["C"], random.Random(i)), "plan": [list(t) for t in one.turns]}
        for i, one in enumerate(made)
    ]
    assert [reject(row, repertoire, most_words=200) for row in rows] == [None] * len(rows)
    assert distinct([texts_of(row) for row in rows], 3) > 0.15


@pytest.mark.parametrize(
    ("user", "assistant", "why"),
    [
        ("look <picture: seven>", "it is seven <speech: seven>", None),
        ("look", "it is seven <speech: seven>", "other media than planned"),
        ("look <picture: a dog>", "it is seven <speech: seven>", "a description that cannot be converted"),
        ("look <picture: seven", "it is seven <speech: seven>", "unparsable marks"),
        ("look <picture: seven>", "As an AI i cannot <speech: seven>", "a refusal"),
        ("look <picture: seven>", "<speech: seven>", "no words beside the medium"),
        ("a bomb <picture: seven>", "it is seven <speech: seven>", "unsafe words"),
        ("look <picture: seven>" + " word" * 60, "it is seven <speech: seven>", "too long"),
        ("", "it is seven <speech: seven>", "an empty message"),
    ],
)
def test_filters_give_their_reason(user, assistant, why):
    row = {"turns": [{"user": user, "assistant": assistant}], "plan": [["picture", "speech"]]}
    assert reject(row, REPERTOIRE, most_words=50) == why


def test_near_duplicates_keep_the_first():
    texts = ["a b c d e f", "a b c d e f", "a b c d e g", "p q r s t u"]
    assert near_duplicates(texts, threshold=0.5) == [False, True, True, False]  # 3 of 5 trigrams are shared
    assert near_duplicates(texts, threshold=0.7) == [False, True, False, False]


def dense_duplicates(texts, threshold):
    grams = CountVectorizer(ngram_range=(3, 3), token_pattern=r"\S+", binary=True).fit_transform(texts).toarray()
    shared, sizes = grams @ grams.T, grams.sum(1)
    jaccard = shared / np.maximum(1, sizes[:, None] + sizes[None] - shared)
    kept: list[int] = []
    for number in range(len(texts)):
        if not (jaccard[number, kept] > threshold).any():
            kept.append(number)
    return [number not in kept for number in range(len(texts))]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_near_duplicates_by_blocks_are_those_of_the_whole_matrix(threshold):
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abc", k=draw.randint(1, 12))) for _ in range(2 * BLOCK + 50)]
    found = near_duplicates(texts, threshold=threshold)
    assert found == dense_duplicates(texts, threshold) and 0 < sum(found) < len(texts)


def test_near_duplicates_need_no_matrix_of_all_pairs():
    texts = [f"look at this one {i} {i + 1} {i + 2} what is it" for i in range(3000)]
    tracemalloc.start()
    assert not any(near_duplicates(texts, threshold=0.7))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 3000**2 * 8 / 2


class Listener:
    """Recognises every signal but those below a number."""

    def __init__(self, least):
        self.least = least

    def name(self, signals):
        return ["seven" if s[0] >= self.least else "two" for s in signals]


def test_failed_conversions_are_tried_again_and_then_given_up():
    library = Library({"speech": [("seven", np.linspace(0, 1, 100).astype(np.float32))]})
    library.make = lambda modality, description, seed: [seed % 17]
    wanted = [("speech", "seven")] * 3
    made = convert(library, {"speech": Listener(2)}, wanted, tries=4, seed=1)
    assert [one["tries"] for one in made] == [3, 3, 3] and all(one["signal"] == [2] for one in made)
    made = convert(library, {"speech": Listener(9)}, wanted, tries=4, seed=1)
    assert [one["signal"] for one in made] == [None] * 3 and made[0]["judged"] == "two" and made[0]["tries"] == 4


def test_the_library_alters_every_use():
    library = Library({"speech": [("seven", np.sin(np.arange(800) / 9).astype(np.float32))]})
    lengths = {len(library.make("speech", "seven", seed)) for seed in range(20)}
    assert len(lengths) > 5 and min(lengths) > 690 and max(lengths) < 910
    assert np.array_equal(library.make("speech", "seven", 3), library.make("speech", "seven", 3))


@pytest.mark.parametrize("panel", ["claims", "check"])
def test_a_judge_of_one_thing_is_refused(panel):
    pictures = [np.full((4, 4, 1), i, np.uint8) for i in range(4)]
    with pytest.raises(InputError, match="picture: a judge has to tell two things apart, all training items are 'cat'"):
        Judge("picture", panel, seed=0).fit(pictures, ["cat"] * 4)
    assert Judge("picture", panel, seed=0).fit(pictures, ["cat", "cat", "dog", "dog"]).name([[]]) == [""]


def test_captions_and_facets_are_inverse():
    drawing = {"text": "waving hand: dark skin tone", "group": "People & Body", "tone": "dark skin tone"}
    assert caption("drawing", drawing) == "people : waving hand : dark skin tone"
    assert facets("drawing", caption("drawing", drawing)) == {"group": "people", "tone": "dark skin tone"}
    assert facets("drawing", "smileys : grinning face") == {"group": "smileys", "tone": "none"}
    assert facets("music", caption("music", {"meter": "6/8", "key": "D"})) == {"meter": "6/8", "key": "D"}
    assert diversity([np.zeros(2), np.array([3.0, 4.0])]) == pytest.approx(5)


def test_media_files_come_back(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype(np.uint8)
    write_png(tmp_path / "a.png", pixels)
    write_png(tmp_path / "b.png", pixels[:, :, :1])
    assert np.array_equal(read_picture(tmp_path / "a.png"), pixels)
    assert np.array_equal(read_picture(tmp_path / "b.png"), pixels[:, :, :1])
    samples = np.linspace(-1, 1, 500).astype(np.float32)
    write_wav(tmp_path / "a.wav", samples, 8000)
    found, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8000 and np.abs(found - samples).max() < 1e-3 and len(resample(found, 8000, 4000)) == 250
    (tmp_path / "c.png").write_text("no picture")
    (tmp_path / "c.wav").write_text("no sound")
    with pytest.raises(DataError, match="not a picture"):
        read_picture(tmp_path / "c.png")
    with pytest.raises(DataError, match="not a WAV"):
        read_wav(tmp_path / "c.wav")
