from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from paperflows.components.models.tiny_bert import train_wordpiece
from paperflows.components.models.word_pieces import reads_words
from paperflows.components.syntax.words import pieces_of


def bytes_alone():
    """A byte-level vocabulary without merges, as RoBERTa's tokenizer reads before it merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbers = {piece: i for i, piece in enumerate(["<s>", "</s>", "<unk>", *letters])}
    inner = Tokenizer(models.BPE(vocab=numbers, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="</s>")


def test_words_of_byte_vocabularies_keep_the_space_before_them():
    tokenizer = bytes_alone()
    ((ids, owner),) = pieces_of(tokenizer, [["The", "food", "was"]])
    assert tokenizer.convert_ids_to_tokens(ids) == list("ĠTheĠfoodĠwas")
    assert owner.tolist() == [0] * 4 + [1] * 5 + [2] * 4


def test_word_pieces_are_as_they_were():
    tokenizer = train_wordpiece(["the food was good"], vocab_size=60)
    before = tokenizer(["the", "food"], is_split_into_words=True)["input_ids"]
    assert reads_words(tokenizer)(["the", "food"], is_split_into_words=True)["input_ids"] == before
