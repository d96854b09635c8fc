import numpy as np
import pytest
import torch
import torch.nn.functional as F

from paperflows.components.errors import InputError
from paperflows.components.prompts.fewshot import few_shot
from paperflows.components.prompts.verbalizer import LabelHead, Template, WordHead, template_of, word_ids, wrap

from .conftest import small

WORDS = {"neg": "bad", "pos": "good"}
SENTIMENT = Template("{text} it was {mask} .", WORDS, WORDS)
PAIRS = Template("{text} ? {mask} , {text_pair}", {"0": "no", "1": "yes"}, {"0": "no", "1": "yes"})


def test_texts_are_cut_and_the_template_stays(tokenizer):
    rows = [{"text": "the film", "label": "pos"}, {"text": "a film " * 20, "label": "neg"}]
    made = wrap(rows, SENTIMENT, tokenizer, max_length=12)
    ids, mask = made.table.pad(np.array([0, 1]))
    assert tokenizer.convert_ids_to_tokens(ids[0][mask[0].bool()]) == [
        "[CLS]",
        "the",
        "film",
        "it",
        "was",
        "[MASK]",
        ".",
        "[SEP]",
    ]
    assert mask[1].sum() == 12 and tokenizer.convert_ids_to_tokens(ids[1])[-5:] == ["it", "was", "[MASK]", ".", "[SEP]"]
    assert all(ids[i, made.places[i]] == tokenizer.mask_token_id for i in range(2))
    assert made.target.tolist() == [1, 0]


def test_of_a_pair_the_longer_text_is_cut(tokenizer):
    rows = [{"text": "the film", "text_pair": "a " * 30, "label": 1}]
    made = wrap(rows, PAIRS, tokenizer, max_length=12)
    assert tokenizer.convert_ids_to_tokens(made.table.pad(np.array([0]))[0][0]) == [
        "[CLS]",
        "the",
        "film",
        "?",
        "[MASK]",
        ",",
        "a",
        "a",
        "a",
        "a",
        "a",
        "[SEP]",
    ]
    plain = wrap(rows, PAIRS.plain(pair=True), tokenizer, max_length=12)
    assert tokenizer.convert_ids_to_tokens(plain.table.pad(np.array([0]))[0][0]) == [
        "[CLS]",
        "the",
        "film",
        "?",
        "a",
        "a",
        "a",
        "a",
        "a",
        "a",
        "a",
        "[SEP]",
    ]


@pytest.mark.parametrize("pattern", ["{text} It was {mask} .", "{mask} : {text}", "{text} ? {mask} , {text_pair}"])
def test_a_vocabulary_of_bytes_reads_the_template_as_it_reads_the_filled_in_text(pattern):
    tokenizer = of_bytes()
    rows = [{"text": "What was it", "text_pair": "It was good news", "label": "pos"}]
    made = wrap(rows, Template(pattern, WORDS, WORDS), tokenizer, max_length=40)
    filled = pattern.format(text=rows[0]["text"], text_pair=rows[0]["text_pair"], mask=tokenizer.mask_token)
    assert made.table.pad(np.array([0]))[0][0].tolist() == tokenizer(filled)["input_ids"]


def of_bytes():
    from tokenizers import AddedToken, ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["What was it? It was good news."] * 20, 400, min_frequency=2, special_tokens=special)
    trained._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, trained.token_to_id(name)) for name in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )  # fmt: skip


def test_bad_templates_name_what_is_wrong(tokenizer):
    with pytest.raises(InputError, match="'nowhere' has no template"):
        template_of("nowhere")
    with pytest.raises(InputError, match=r"templates.x.pattern: expected"):
        template_of("x", {"x": {"pattern": "{text}", "words": WORDS}})
    with pytest.raises(InputError, match="different labels"):
        template_of("x", {"x": {"pattern": "{text} {mask}", "words": WORDS, "sentences": {"neg": "a"}}})
    with pytest.raises(InputError, match="'great news' of 'pos' is 2 pieces"):
        word_ids(Template("", {"pos": "great news"}, {}), tokenizer)
    with pytest.raises(InputError, match="the same word"):
        word_ids(Template("", {"a": "yes", "b": "yes"}, {}), tokenizer)
    with pytest.raises(InputError, match="label 'other' has no word"):
        wrap([{"text": "a", "label": "other"}], SENTIMENT, tokenizer, max_length=12)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_word_head_gives_the_models_own_logits(kind, batch):
    ids, mask = batch
    model = small(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    words, place = torch.tensor([7, 30, 11]), torch.tensor([2, 0, 6])
    expected = model(input_ids=ids, attention_mask=mask).logits[torch.arange(3), place][:, words]
    states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(WordHead(model, words)(states, mask, place), expected, atol=1e-5, rtol=0)
    assert model(input_ids=ids).logits.shape[-1] == 40, "the model keeps its own head"


def test_the_label_head_is_a_scaled_cosine():
    states, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]])
    vectors = torch.randn(5, 4)
    expected = 20 * F.cosine_similarity(states[0, :2].mean(0)[None], vectors)
    torch.testing.assert_close(LabelHead(vectors)(states, mask, torch.zeros(2))[0], expected)


def test_shots_are_balanced_disjoint_and_without_copies():
    rows = [{"text": f"Text {i % 30}", "label": "ab"[i % 2]} for i in range(90)]
    train, dev = few_shot(rows, train=6, dev=9, seed=3)
    assert [sum(r["label"] == c for r in some) for some in (train, dev) for c in "ab"] == [6, 6, 9, 9]
    texts = [r["text"] for r in train + dev]
    assert len(set(texts)) == len(texts) == 30
    assert few_shot(rows, train=6, dev=9, seed=3) == (train, dev) != few_shot(rows, train=6, dev=9, seed=4)
    hidden = [{"text": "text  7", "label": "a"}]
    assert "Text 7" not in [r["text"] for some in few_shot(rows, train=6, dev=8, seed=3, without=hidden) for r in some]


def test_a_small_class_gives_what_it_has():
    rows = [{"text": f"Text {i}", "label": "rare" if i < 5 else "common"} for i in range(40)]
    train, dev = few_shot(rows, train=8, dev=8, seed=0)
    assert [sum(r["label"] == c for r in some) for some in (train, dev) for c in ("rare", "common")] == [2, 8, 3, 8]
    with pytest.raises(InputError, match="label 'rare' has 1 different examples; 2 at least"):
        few_shot(rows[4:], train=8, dev=8, seed=0)
    train, dev = few_shot(rows[4:], train=8, dev=0, seed=0)
    assert sum(r["label"] == "rare" for r in train) == 1 and len(train) == 9 and dev == []
