"""An NLI classifier as the judge of citations: a tiny one, against plain transformers calls."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_tokenizer
from paperflows.components.retrieval.citations import Statement, citation_precision, citation_recall
from paperflows.components.retrieval.entailment import EntailmentJudge, entailed_support

PASSAGES = ["Niamey is the capital of Niger.", "Gold is a metal, " + "as was said, " * 50, "Chad borders Niger.", "Hm."]
STATEMENTS = ["Niamey", "The capital of Niger is Niamey, " + "they say, " * 30, "Gold is no metal.", "Chad."]


def build(folder, labels):
    tokenizer = load_tokenizer("minilm")
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)},
        initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nli")
    return str(folder), *build(folder, ["CONTRADICTION", "ENTAILMENT", "NEUTRAL"])


def test_it_says_what_the_classifier_says(made):
    folder, model, tokenizer = made
    pairs = [(p, s) for p in PASSAGES for s in STATEMENTS]
    said = EntailmentJudge(folder, device="cpu", max_length=64).entails(*zip(*pairs, strict=True), batch_size=3)
    for (premise, hypothesis), verdict in zip(pairs, said, strict=True):
        inputs = tokenizer(premise, hypothesis, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            assert verdict == (int(model(**inputs).logits.argmax()) == 1)
    assert 0 < said.sum() < len(said)
    assert EntailmentJudge(folder, device="cpu").entails([], []).shape == (0,)


def test_the_measures_by_its_verdicts(made):
    folder, *_ = made
    judge = EntailmentJudge(folder, device="cpu", max_length=64)
    answers = [[Statement(STATEMENTS[0], (0, 2, 3)), Statement(STATEMENTS[3], ())], [Statement(STATEMENTS[2], (1,))]]
    supported = entailed_support(answers, lambda place: PASSAGES[place], judge)

    def alone(text, cited):
        return bool(judge.entails(["\n".join(PASSAGES[c] for c in cited)], [text])[0]) if cited else False

    for statements in answers:
        assert citation_recall(statements, supported) == citation_recall(statements, alone)
        assert citation_precision(statements, supported) == citation_precision(statements, alone)
    assert not supported(STATEMENTS[3], ())


def test_another_classifier_is_refused(tmp_path):
    build(tmp_path, ["negative", "positive"])
    with pytest.raises(InputError, match="judges no entailment: its labels are negative, positive"):
        EntailmentJudge(str(tmp_path), device="cpu")
