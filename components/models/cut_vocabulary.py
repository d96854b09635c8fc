"""A pretrained encoder's vocabulary cut to the pieces that a corpus uses, and the masked LM over it. V pieces."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paperflows.components.errors import InputError
from paperflows.components.models.pretrained import load_pretrained, load_tokenizer


def cut_tokenizer(tokenizer: Any, texts: Sequence[str], least: int) -> tuple[Any, Tensor]:
    """A tokenizer of the special pieces and those that `texts` use at least `least` times, and the pieces' counts (V,).

    A word that the remaining pieces cannot spell becomes [UNK]. Counts are of the texts as the cut tokenizer reads
    them; special pieces but [UNK] count nothing.
    """
    from collections import Counter

    from transformers import BertTokenizer

    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    used = Counter(i for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"] for i in row)
    special = set(tokenizer.all_special_ids)
    kept = [i for i in range(len(pieces)) if i in special or used[i] >= least]
    normal = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    small = BertTokenizer(
        vocab={pieces[i]: n for n, i in enumerate(kept)}, do_lower_case=getattr(normal, "lowercase", True),
        strip_accents=getattr(normal, "strip_accents", None),
    )  # fmt: skip
    counts = torch.zeros(len(small), dtype=torch.long)
    read = Counter(i for row in small(list(texts), add_special_tokens=False)["input_ids"] for i in row)
    for number, count in read.items():
        counts[number] = count
    return small, counts


def start_masked_lm(
    encoder: str, tokenizer: Any, counts: Tensor, *, layers: int, pretrained: bool, seed: int
) -> torch.nn.Module:
    """A `BertForMaskedLM` over the cut vocabulary: the first `layers` of the encoder, or fresh ones of the same size.

    Every start has the log unigram frequencies as output bias. A pretrained encoder without a masked-LM head gets an
    identity transform; one with a head keeps it.

    Args:
        tokenizer: of `cut_tokenizer`.

    Raises:
        InputError: the encoder is no BERT or has fewer layers.
    """
    from transformers import AutoConfig, AutoModelForMaskedLM, BertForMaskedLM

    from paperflows.components.models.pretrained import model_location

    config = AutoConfig.from_pretrained(model_location(encoder))
    if config.model_type != "bert":
        raise InputError(f"encoder {encoder!r}: expected a BERT, got {config.model_type}")
    if layers > config.num_hidden_layers:
        raise InputError(f"layers: {encoder!r} has {config.num_hidden_layers}, not {layers}")
    config.vocab_size, config.num_hidden_layers = len(tokenizer), layers
    config.pad_token_id, config.tie_word_embeddings = tokenizer.pad_token_id, True
    torch.manual_seed(seed)
    model = BertForMaskedLM(config)
    if not pretrained:
        start_bias(model, counts)
        return model
    whole, found = load_pretrained(AutoModelForMaskedLM, encoder, output_loading_info=True)
    old = load_tokenizer(encoder)
    rows = torch.tensor(old.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))))
    state = whole.state_dict()
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", "cls.predictions.bias",
                 "cls.predictions.decoder.bias"):  # fmt: skip
        if name in state:
            state[name] = state[name][rows]
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    if any(name.startswith("cls.predictions.transform") for name in found["missing_keys"]):
        start_head(model, counts)
    return model


def start_head(lm: Any, counts: Tensor) -> None:
    """Give a masked LM without a trained head the best start: identity transform, bias of log unigram frequencies.

    Args:
        counts: (V,) of the training texts; a token never seen counts as seen half a time.
    """
    transform = lm.cls.predictions.transform
    with torch.no_grad():
        transform.dense.weight.copy_(torch.eye(transform.dense.weight.shape[0]))
        transform.dense.bias.zero_()
    start_bias(lm, counts)


def start_bias(lm: Any, counts: Tensor) -> None:
    """Set the output bias to log unigram frequencies, whatever the body."""
    seen = counts.double().clamp(min=0.5)
    with torch.no_grad():
        lm.cls.predictions.bias.copy_((seen / seen.sum()).log().float())
