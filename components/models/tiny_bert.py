"""Small BERTs that a flow trains itself: WordPiece vocabulary, fresh weights, masked-language-model loss.

Letters: B texts, T tokens, V vocabulary. Source: Devlin et al. 2019, section 3.1.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_wordpiece(texts: Iterable[str], *, vocab_size: int, characters: int = 1000) -> Any:
    """A lower-casing BERT tokenizer with a WordPiece vocabulary of at most `vocab_size` learnt from `texts`.

    The same texts give the same pieces with the same ids. The library alone does not promise that: it numbers the
    continuing characters (`##a`) in the order of a randomly seeded hash table, and equally frequent merges are taken
    in the order of these numbers. So the characters are numbered here, in sorted order, before it starts.

    Args:
        characters: most of them in the vocabulary; the rarer ones become [UNK]. Each Chinese character is a word of its
            own: with enough of them this is a character-level tokenizer for Chinese.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    texts = list(texts)
    learner = BertWordPieceTokenizer(lowercase=True)
    clean, split = learner.normalizer.normalize_str, learner.pre_tokenizer.pre_tokenize_str
    words = Counter(word for text in texts for word, _ in split(clean(text)))
    frequency: Counter[str] = Counter()
    for word, count in words.items():
        frequency.update({c: count * n for c, n in Counter(word).items()})
    alphabet = sorted(sorted(frequency, key=lambda c: (-frequency[c], c))[:characters])
    continuing = sorted({f"##{c}" for word in words for c in word[1:]} & {f"##{c}" for c in alphabet})
    learner.train_from_iterator(
        texts,
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[*SPECIALS, *continuing],  # "special" only in that their numbers are given
    )
    return BertTokenizer(vocab=learner.get_vocab(), do_lower_case=True)


def tiny_bert(
    *, vocab_size: int, width: int, layers: int, heads: int, positions: int = 128, seed: int = 0
) -> nn.Module:
    """A fresh `BertForMaskedLM` (tied embeddings) with `layers` of width `width`, seeded."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=positions,
    )
    return BertForMaskedLM(config)


def mask_tokens(
    ids: Tensor, mask: Tensor, *, tokenizer: Any, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """BERT's corruption: of `share` of the tokens, 80 % become [MASK], 10 % a random token, 10 % stay.

    Args:
        ids, mask: (B, T) token ids and attention mask.

    Returns:
        Corrupted ids (B, T) and labels (B, T), -100 where nothing is predicted.
    """
    special = torch.tensor(tokenizer.all_special_ids)
    eligible = mask.bool() & ~torch.isin(ids, special)
    chosen = eligible & (torch.rand(ids.shape, generator=generator) < share)
    action = torch.rand(ids.shape, generator=generator)
    noise = torch.randint(len(SPECIALS), len(tokenizer), ids.shape, generator=generator)
    corrupted = torch.where(chosen & (action < 0.8), tokenizer.mask_token_id, ids)
    corrupted = torch.where(chosen & (action >= 0.9), noise, corrupted)
    return corrupted, torch.where(chosen, ids, -100)


def masked_lm_loss(model: nn.Module, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats of the chosen tokens; the vocabulary is scored only where needed."""
    masked_lm: Any = model
    hidden = masked_lm.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    chosen = labels != -100
    head = getattr(masked_lm, "cls", None) or masked_lm.lm_head
    logits = head(hidden[chosen])
    return F.cross_entropy(logits.float(), labels[chosen])
