"""A language model that writes its decoding settings first and then answers under them.

An input ends in one of two marks: after `<settings>` the model writes one special word a setting; before `<answer>` it
is told these words, and after it writes the answer. A model with a chat template reads the input as a message, and the
marks stand where its own turn begins. Letters: B sequences, T tokens, R generations.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.decoding.configurations import (
    SETTINGS,
    Configuration,
    Grid,
    as_rows,
    grid_words,
    parse_words,
)
from paperflows.components.llm.decode import decode_rows, left_pad
from paperflows.components.llm.sampling import uniforms
from paperflows.components.models.pretrained import load_pretrained, load_tokenizer
from paperflows.components.models.tiny_decoder import tiny_decoder

ASK, ANSWER = "<settings>", "<answer>"
ROWS = 512  # generated together, at most,
CACHE = 8 * 2**30  # with keys and values of so many bytes


def train_tokenizer(texts: Sequence[str], *, size: int) -> Any:
    """Byte-level BPE of at most `size` tokens; every digit is a token, so that sums can be learnt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<pad>", "<end>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=learner, pad_token="<pad>", eos_token="<end>")


class Writer:
    """A causal language model with words for settings in its vocabulary.

    Args:
        model: a transformers causal language model.
        tokenizer: its fast tokenizer, which has a padding and an end token.
        grid: values of the settings.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, grid: Grid) -> None:
        self.model, self.tokenizer, self.grid = model, tokenizer, grid
        self._chats = bool(tokenizer.chat_template)
        words = [ASK, ANSWER, *grid_words(grid)]
        if missing := [word for word in words if word not in tokenizer.get_vocab()]:
            tokenizer.add_special_tokens({"additional_special_tokens": missing})
            if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # type: ignore[operator]
                model.resize_token_embeddings(len(tokenizer))  # type: ignore[operator]
            self._begin_new(missing)
        self._end = tokenizer.eos_token_id
        self._ends = {self._end}
        if self._chats:  # a turn may end otherwise than a text does
            shipped = model.generation_config.eos_token_id  # type: ignore[union-attr]
            self._ends |= {shipped} if isinstance(shipped, int) else set(shipped or ())  # type: ignore[arg-type]
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._end

    @torch.no_grad()
    def _begin_new(self, words: Sequence[str]) -> None:
        """A new word begins as the mean of those that describe it, so that a model which has not learnt it yet reads
        an input much as it would read a plain prompt.
        """
        described = {ASK: "\nDecoding settings:", ANSWER: "\nAnswer:"}
        for table in {self.model.get_input_embeddings(), self.model.get_output_embeddings()} - {None}:  # type: ignore[operator]
            for word in words:
                text = described.get(word, f" {word.strip('<>').replace('=', ' ')}")
                ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
                number = self.tokenizer.convert_tokens_to_ids(word)
                table.weight[number] = table.weight[ids].mean(0)

    @classmethod
    def fresh(cls, texts: Sequence[str], grid: Grid, *, vocabulary: int, seed: int, **sizes: int) -> "Writer":
        """A new tiny decoder with a vocabulary learnt from `texts`."""
        tokenizer = train_tokenizer(texts, size=vocabulary)
        tokenizer.add_special_tokens({"additional_special_tokens": [ASK, ANSWER, *grid_words(grid)]})
        return cls(tiny_decoder(vocabulary=len(tokenizer), seed=seed, **sizes), tokenizer, grid)

    @classmethod
    def load(cls, model: str, grid: Grid) -> "Writer":
        """A folder that `save` wrote, or a Hugging Face id of a causal language model."""
        from transformers import AutoModelForCausalLM

        return cls(load_pretrained(AutoModelForCausalLM, model), load_tokenizer(model), grid)

    def save(self, folder: Path) -> None:
        """Write weights, config and tokenizer."""
        self.model.save_pretrained(folder)  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder)

    def adapt(self, rank: int, dtype: torch.dtype) -> None:
        """Freeze everything in `dtype` but LoRA's updates of all linear layers, twice their rank as alpha, and the rows
        of the words for settings (Hu et al. 2022); activations are computed again in the backward pass.
        """
        from peft import LoraConfig, get_peft_model

        model: Any = self.model.to(dtype)
        model.activation_checkpointing_enable({"use_reentrant": False})
        tables = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
        if model.config.tie_word_embeddings:
            tables = {id(model.get_input_embeddings())}
        numbers = self.tokenizer.convert_tokens_to_ids([ASK, ANSWER, *grid_words(self.grid)])
        rows = {name.rpartition(".")[2]: numbers for name, module in model.named_modules() if id(module) in tables}
        lora = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", trainable_token_indices=rows,
            task_type="CAUSAL_LM",
        )  # fmt: skip
        self.model = get_peft_model(model, lora)

    def merge(self) -> None:
        """Add what `adapt` trained to the weights, which are a plain model's again."""
        self.model = self.model.merge_and_unload()  # type: ignore[operator]
        self.model.activation_checkpointing_disable()  # type: ignore[operator]

    def answer_rows(
        self, prompts: Sequence[str], answers: Sequence[str], told: Sequence[Configuration] | None = None
    ) -> list[tuple[list[int], int]]:
        """Token ids that teach an answer, and how many of them are the input.

        Args:
            told: settings that stand in the input; none do if it is left out.
        """
        ends = self.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        return [
            (start + end + [self._end], len(start))
            for start, end in zip(self._ask(prompts, ANSWER, told), ends, strict=True)
        ]

    def settings_rows(self, prompts: Sequence[str], labels: Sequence[Configuration]) -> list[tuple[list[int], int]]:
        """Token ids that teach the settings of an input, and how many of them are the input."""
        return [
            (start + self._said(label), len(start))
            for start, label in zip(self._ask(prompts, ASK), labels, strict=True)
        ]

    def batch(self, rows: Sequence[tuple[list[int], int]], *, whole: bool) -> dict[str, Tensor]:
        """Padded ids, mask and targets (B, T); targets are -100 on padding and, unless `whole`, on the input."""
        width = max(len(ids) for ids, _ in rows)
        tokens = torch.full((len(rows), width), self._pad)
        mask, targets = torch.zeros_like(tokens), torch.full_like(tokens, -100)
        for i, (ids, start) in enumerate(rows):
            tokens[i, : len(ids)], mask[i, : len(ids)] = torch.tensor(ids), 1
            first = 0 if whole else start
            targets[i, first : len(ids)] = tokens[i, first : len(ids)]
        return {"tokens": tokens, "mask": mask, "targets": targets}

    def settle(self, prompts: Sequence[str]) -> tuple[list[Configuration], list[bool]]:
        """Stage 1: the configuration that the model writes for each input, greedily, and whether it is valid."""
        greedy = [Configuration(temperature=0.0, top_p=1.0, top_k=0)] * len(prompts)
        each = np.arange(len(prompts))
        rows = self._generate(self._ask(prompts, ASK), each, greedy, np.zeros(len(prompts), int), len(SETTINGS))
        said = [parse_words(self.tokenizer.convert_ids_to_tokens(row), self.grid) for row in rows]
        return [configuration for configuration, _ in said], [valid for _, valid in said]

    def answer(
        self, prompts: Sequence[str], which: np.ndarray, configurations: Sequence[Configuration], seeds: np.ndarray,
        *, longest: int, told: bool,
    ) -> list[str]:  # fmt: skip
        """Stage 2: one text (R,) for each `which` prompt under the configuration and seed beside it.

        Args:
            told: whether the configuration stands in the input too, as the grid's nearest words.
        """
        if told:
            pairs = list(zip(which.tolist(), configurations, strict=True))
            place = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
            asked = self._ask([prompts[i] for i, _ in place], ANSWER, [configuration for _, configuration in place])
            which = np.array([place[pair] for pair in pairs])
        else:
            asked = self._ask(prompts, ANSWER)
        rows = self._generate(asked, which, configurations, seeds, longest)
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def _ask(self, prompts: Sequence[str], mark: str, told: Sequence[Configuration] | None = None) -> list[list[int]]:
        """Ids of the inputs as the model reads them; a model that chats and is told nothing reads a plain message."""
        number = self.tokenizer.convert_tokens_to_ids(mark)
        said = [self._said(configuration) for configuration in told] if told is not None else [[]] * len(prompts)
        ends = [] if self._chats and mark == ANSWER and told is None else [number]
        if self._chats:
            turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
            texts = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            asked = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        else:
            first = [i for i in self.tokenizer("")["input_ids"] if i == self.tokenizer.bos_token_id]
            asked = [first + ids for ids in self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]]
        return [[*ids, *words, *ends] for ids, words in zip(asked, said, strict=True)]

    def _said(self, configuration: Configuration) -> list[int]:
        ids: list[int] = self.tokenizer.convert_tokens_to_ids(configuration.words(self.grid))
        return ids

    def _generate(
        self, asked: Sequence[list[int]], which: np.ndarray, configurations: Sequence[Configuration],
        seeds: np.ndarray, steps: int,
    ) -> list[list[int]]:  # fmt: skip
        lengths = np.array([len(asked[i]) for i in which])
        device = next(self.model.parameters()).device
        ends = torch.tensor(sorted(self._ends), device=device)
        out: list[list[int]] = [[] for _ in which]
        order = np.lexsort((which, lengths))
        size = rows_that_fit(self.model, int(lengths.max(initial=1)) + steps)
        for at in range(0, len(order), size):
            rows = order[at : at + size]
            mine, place = np.unique(which[rows], return_inverse=True)
            ids, mask = left_pad([asked[i] for i in mine], self._pad, device)
            settings = as_rows([configurations[r] for r in rows]).to(device)
            done = decode_rows(
                self.model, ids, mask, torch.from_numpy(place).to(device), settings,
                uniforms([int(seeds[r]) for r in rows], steps).to(device),
                limits=torch.full((len(rows),), steps, device=device), ends=ends,
            )  # fmt: skip
            for r, tokens, length in zip(rows, done.tokens.tolist(), done.lengths.tolist(), strict=True):
                out[r] = [token for token in tokens[:length] if token not in self._ends]
        return out


def rows_that_fit(model: Any, tokens: int) -> int:
    """Rows of so many tokens that are generated together: at most `ROWS`, and keys and values within `CACHE` bytes."""
    c, head = model.config, getattr(model.config, "head_dim", None)
    heads = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
    width = heads * (head or c.hidden_size // c.num_attention_heads)
    each = 2 * c.num_hidden_layers * width * next(model.parameters()).element_size()
    return max(1, min(ROWS, CACHE // (each * tokens)))


def sequence_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy in nats of the targets, each predicted from the tokens before it."""
    logits = model(input_ids=batch["tokens"], attention_mask=batch["mask"]).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch["targets"][:, 1:].flatten(), ignore_index=-100)
