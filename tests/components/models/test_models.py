import copy
import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from paperflows.components.annotation.writers import MLMWriter
from paperflows.components.errors import InputError, ServiceError
from paperflows.components.models.causal_bert import causal_twin, token_losses
from paperflows.components.models.encoder import SentenceEncoder, _published_pooling, load_encoder
from paperflows.components.models.pretrained import load_pretrained, model_location
from paperflows.components.models.tiny_bert import SPECIALS, mask_tokens, masked_lm_loss, tiny_bert, train_wordpiece
from paperflows.tasks.store import folder_digest

TEXTS = ["A cat sits on the mat.", "The weather is fine today.", "A cat is sitting on a mat.", "x", "naïve 漢字 🙂"] * 3


@pytest.fixture(scope="module")
def minilm():
    return load_encoder("minilm", device="cpu")


@pytest.fixture(scope="module")
def small():
    tokenizer = train_wordpiece([f"word{i % 40} and thing{i % 7} again" for i in range(200)], vocab_size=150)
    return tiny_bert(vocab_size=len(tokenizer), width=32, layers=2, heads=2, positions=32, seed=0), tokenizer


def test_embeddings_equal_those_of_sentence_transformers(minilm):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(model_location("minilm"), device="cpu").encode(TEXTS, convert_to_tensor=True)
    ours = torch.nn.functional.normalize(minilm.embed(TEXTS), dim=-1)
    assert torch.allclose(ours, torch.nn.functional.normalize(theirs, dim=-1), atol=1e-5)


def test_the_same_texts_give_the_same_vocabulary():
    pick = random.Random(0)
    words = ["".join(pick.choices("abcdefgh", k=pick.randint(2, 7))) for _ in range(800)]
    texts = [" ".join(pick.choices(words, k=10)) for _ in range(800)]
    first, second = (train_wordpiece(texts, vocab_size=500).get_vocab() for _ in range(2))
    assert first == second and len(first) == 500
    assert [p for p, _ in sorted(first.items(), key=lambda item: item[1])][:5] == list(SPECIALS)


def test_pieces_that_were_numbered_first_are_not_special():
    tokenizer = train_wordpiece(["abc abe"] * 3, vocab_size=40)
    assert set(tokenizer.all_special_tokens) == set(SPECIALS)
    assert tokenizer.tokenize("ABC ##c") == ["abc", "[UNK]", "[UNK]", "c"]
    assert tokenizer.decode(tokenizer("abce")["input_ids"], skip_special_tokens=True) == "abce"


def test_order_budget_and_repeats_do_not_change_embeddings(minilm):
    whole = minilm.embed(TEXTS)
    assert torch.allclose(whole, torch.cat([minilm.embed([t]) for t in TEXTS]), atol=1e-5)
    assert torch.allclose(whole, minilm.embed(TEXTS, token_budget=8), atol=1e-5)
    assert torch.equal(whole[:5], whole[5:10])
    assert minilm.embed([]).shape == (0, 384)


def test_similar_sentences_are_closer(minilm):
    vectors = torch.nn.functional.normalize(minilm.embed(TEXTS[:3]), dim=-1)
    similarity = vectors @ vectors.T
    assert similarity[0, 2] > 0.9 > 0.3 > similarity[0, 1]


def test_a_published_encoder_pools_as_its_makers_say(tmp_path, small):
    model, tokenizer = small
    model.bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_encoder(str(tmp_path), device="cpu").pooling == "mean"
    (tmp_path / "1_Pooling").mkdir()
    said = tmp_path / "1_Pooling" / "config.json"
    said.write_text(
        '{"word_embedding_dimension": 16, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    assert load_encoder(str(tmp_path), device="cpu").pooling == "cls"
    assert load_encoder(str(tmp_path), device="cpu", pooling="mean").pooling == "mean"
    said.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}')
    with pytest.raises(InputError, match="pools by pooling_mode_cls_token, pooling_mode_mean_tokens"):
        load_encoder(str(tmp_path), device="cpu")


def test_a_hub_out_of_reach_is_said_where_pooling_is_assumed(monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert _published_pooling("nobody/no-such-model", None) is None
    assert "'nobody/no-such-model': the hub cannot be asked how it pools; mean is assumed" in caplog.text


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_saved_encoder_is_the_same_when_loaded(tmp_path, small, pooling):
    model, tokenizer = small
    encoder = SentenceEncoder(model.bert, tokenizer, pooling=pooling, max_length=16)
    encoder.save(tmp_path)
    loaded = load_encoder(str(tmp_path), device="cpu")
    assert (loaded.pooling, loaded.max_length) == (pooling, 16)
    assert torch.allclose(loaded.embed(["word1 and thing2"]), encoder.embed(["word1 and thing2"]), atol=1e-6)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_an_encoder_from_a_masked_lm_is_the_same_each_time(tmp_path, small):
    model, tokenizer = small  # its pooler has no weights: the library would draw them anew at each load
    model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    for name in ("a", "b"):
        load_encoder(str(tmp_path / "start"), device="cpu").save(tmp_path / name)
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")
    assert load_encoder(str(tmp_path / "a"), device="cpu").encoder.pooler is None


def test_an_encoder_without_some_of_its_weights_is_refused(tmp_path, small):
    model, tokenizer = small
    model.bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights = {key: value for key, value in weights.items() if "layer.1.output" not in key}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 4 of the encoder's, encoder.layer.1.output"):
        load_encoder(str(tmp_path), device="cpu")


def test_missing_and_malicious_folders(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_encoder(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="no config.json"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}))
    (tmp_path / "evil.py").write_text("open('/tmp/paperflows-evil', 'w')")
    with pytest.raises(InputError, match="auto_map"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 32}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04pickle")
    with pytest.raises(InputError, match="safetensors"):
        load_pretrained(AutoModel, str(tmp_path))


def test_unknown_hub_id_offline_names_id_and_cache(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ServiceError, match="nobody/nothing.*cache.*hf download"):
        load_encoder("nobody/nothing")


def test_masking_shares(small):
    _, tokenizer = small
    ids = torch.full((200, 30), tokenizer.convert_tokens_to_ids("and"))
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    mask = torch.ones_like(ids)
    mask[:, 25:] = 0
    corrupted, labels = mask_tokens(
        ids, mask, tokenizer=tokenizer, share=0.15, generator=torch.Generator().manual_seed(0)
    )
    chosen = labels != -100
    assert not chosen[:, 0].any() and not chosen[:, 25:].any()
    assert chosen[:, 1:25].float().mean().item() == pytest.approx(0.15, abs=0.02)
    masked = (corrupted == tokenizer.mask_token_id)[chosen].float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.05)
    assert torch.equal(corrupted[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])


def test_masked_lm_loss_equals_the_library(small):
    model, tokenizer = small
    batch = tokenizer(["word1 and thing2 again", "word3"], padding=True, return_tensors="pt")
    labels = torch.where(torch.rand(batch["input_ids"].shape) < 0.5, batch["input_ids"], -100)
    labels[0, 1] = batch["input_ids"][0, 1]
    model.eval()
    theirs = model(**{k: batch[k] for k in ("input_ids", "attention_mask")}, labels=labels).loss
    ours = masked_lm_loss(model, batch["input_ids"], batch["attention_mask"], labels)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_writer_changes_masked_words_only_and_repeats_itself(small):
    model, tokenizer = small
    writer = MLMWriter(model, tokenizer, device="cpu")
    texts = [f"word{i} and thing{i % 5} again" for i in range(12)]
    written = writer.write(texts, [0.5] * 12, 3)
    assert written == writer.write(texts, [0.5] * 12, 3)
    assert written != writer.write(texts, [0.5] * 12, 4)
    changed = [
        sum(a != b for a, b in zip(t.split(), w.split(), strict=False)) for t, w in zip(texts, written, strict=True)
    ]
    assert all(count >= 1 for count in changed), "a masked word never becomes itself again"
    assert not any("[MASK]" in w or "[PAD]" in w for w in written)


def test_fetched_masked_lm_is_usable_as_writer(tmp_path, small):
    model, tokenizer = small
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_pretrained(AutoModelForMaskedLM, str(tmp_path))
    assert MLMWriter(loaded, tokenizer, device="cpu").write(["word1 and thing2"], [0.3], 0)[0]


def test_a_writer_with_a_vocabulary_of_bytes_keeps_the_spaces_between_words():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbers = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])}
    inner = Tokenizer(models.BPE(vocab=numbers, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>", model_max_length=60
    )
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    lm = RobertaForMaskedLM(RobertaConfig(vocab_size=len(numbers), max_position_embeddings=64, **size))
    (written,) = MLMWriter(lm, tokenizer, device="cpu").write(["the food was really good today"], [0.2], 0)
    # all but one word stay as they were (what a fresh model writes in its place is not a word, nor has it a space)
    assert written.startswith("the food was really") and written.endswith(" today") and "good" not in written


@pytest.fixture
def decoder(small):
    lm = copy.deepcopy(small[0]).eval()
    return causal_twin(lm, never=[0, 1]).eval(), lm


def test_a_causal_twin_starts_as_its_masked_lm_and_sees_only_the_left(decoder):
    model, lm = decoder
    own, theirs = model.state_dict(), lm.state_dict()
    assert own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own)
    assert model.get_input_embeddings().weight is not lm.get_input_embeddings().weight
    rows = torch.tensor([[2, 3, 4, 5], [2, 3, 6, 7]])
    with torch.no_grad():
        said = model(input_ids=rows).logits
        # of one token there is nothing to the right: the twin says what the masked LM says, the banned tokens aside
        alone, plain = model(input_ids=rows[:1, :1]).logits, lm(input_ids=rows[:1, :1]).logits
    assert torch.equal(said[0, :2], said[1, :2]) and not torch.allclose(said[0, 2], said[1, 2])
    assert torch.allclose(alone[..., 2:], plain[..., 2:], atol=1e-5) and bool((alone[..., :2] == -torch.inf).all())


def test_the_twin_continues_with_its_cache_as_without(decoder):
    from paperflows.components.llm.decode import decode_rows, left_pad
    from paperflows.components.llm.sampling import RowSettings

    model, _ = decoder
    prompts = [[2, 7, 9], [2, 8]]
    ids, mask = left_pad(prompts, 0, torch.device("cpu"))
    greedy = RowSettings(torch.zeros(4), torch.ones(4), torch.zeros(4, dtype=torch.long), torch.ones(4))
    done = decode_rows(
        model, ids, mask, torch.tensor([0, 1, 1, 0]), greedy, torch.rand(4, 6), limits=torch.full((4,), 6),
        ends=torch.tensor([-1]),
    )  # fmt: skip
    for row, prompt in zip(done.tokens.tolist(), [prompts[i] for i in (0, 1, 1, 0)], strict=True):
        whole = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                whole.append(int(model(input_ids=torch.tensor([whole])).logits[0, -1].argmax()))
        assert row == whole[len(prompt) :]


def test_the_decoders_probabilities_of_all_texts_sum_to_one(decoder):
    model, _ = decoder
    vocabulary = range(2, model.config.vocab_size)
    rows = torch.tensor([[2, a, b, 5] for a in vocabulary for b in vocabulary])
    with torch.no_grad():
        wanted = torch.tensor([[False, True, True, False]]).expand(len(rows), 4)
        losses = token_losses(model, rows, torch.ones_like(rows), wanted)
        assert (-losses).exp().sum().item() == pytest.approx(1.0, abs=1e-5)
        one = model(input_ids=rows[:1, :2]).logits.log_softmax(-1)  # rows[0] is 2 2 2 5
        assert losses[0].item() == pytest.approx(-(one[0, 0, 2] + one[0, 1, 2]).item(), abs=1e-4)
        padded = torch.cat([rows, torch.zeros_like(rows[:, :1])], 1)
        mask, more = (padded != 0).long(), torch.cat([wanted, torch.zeros(len(rows), 1, dtype=torch.bool)], 1)
        assert torch.allclose(token_losses(model, padded, mask, more), losses, atol=1e-5)


def test_a_masked_lm_is_scored_beside_the_most_frequent_token():
    from paperflows.components.models.masked_lm_head import masked_accuracy

    tokenizer = train_wordpiece(["a b c", "a a b", "a a a"] * 3, vocab_size=20)
    model = tiny_bert(vocab_size=len(tokenizer), width=16, layers=1, heads=2, seed=0)
    with torch.no_grad():
        model.cls.predictions.bias[tokenizer.convert_tokens_to_ids("a")] = 1e3
    texts = ["a a a a b", "a c a a", "b b c a a"] * 40
    accuracy, most_frequent = masked_accuracy(model, tokenizer, texts, max_length=16, seed=0)
    assert accuracy == most_frequent and 0.5 < accuracy < 0.8, "9 of 14 tokens are an a, and it says nothing else"
