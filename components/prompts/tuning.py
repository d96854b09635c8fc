"""An encoder put to a task, and what of it is trained: prompts, adapters, or everything.

All have the same input and the same head over labels, so that they differ in the trained part alone.
Frozen parts run without dropout.

Letters: B batch, T tokens, n prompt vectors, D width, C classes, L layers.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.models.adapters import add_adapters
from paperflows.components.prompts.encoder import How, PromptEncoder, Stream
from paperflows.components.prompts.soft_prompt import Kind, make_prompt

Method = Literal["naive", "npg", "appg", "mppg", "input", "deep", "lora", "adapter", "bitfit", "full"]
PROMPTS = ("naive", "npg", "appg", "mppg", "input", "deep")


class PromptedClassifier(nn.Module):
    """An encoder, trainable prompts at some of its layers, and a head that knows the labels.

    Args:
        encoder: of Hugging Face, BERT-like.
        head: (states (B, T, D), mask (B, T), place of the mask token (B,)) -> logits (B, C).
        prompts: layer (from 0) -> module that makes its prompt of the text's states and mask.
        how: what a prompt does where an earlier one stands ("replace": prompts at every layer as in P-tuning v2).
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, prompts: Mapping[int, nn.Module], *, how: How = "add"
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.how = PromptEncoder(encoder), head, how
        self.prompts = nn.ModuleDict({str(layer): prompt for layer, prompt in prompts.items()})
        self.frozen = False

    @property
    def first(self) -> int:
        """The lowest layer with a prompt; the layers below see none and need no gradient."""
        return min((int(layer) for layer in self.prompts), default=0)

    def freeze(self) -> None:
        """Train the prompts alone."""
        self.frozen = True
        self.encoder.requires_grad_(False)
        self.head.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PromptedClassifier":
        """As in torch, but a frozen encoder stays in evaluation mode: its states are the same at every step."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
            self.head.eval()
        return self

    def lower(self, tokens: Tensor, mask: Tensor) -> Stream:
        """(B, T) -> the stream that enters the lowest layer with a prompt."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder.advance(self.encoder.start(tokens, mask), last=self.first)

    def upper(self, stream: Stream) -> Stream:
        """From there through the last layer."""
        given = {int(layer): prompt for layer, prompt in self.prompts.items()}
        return self.encoder.advance(stream, given, first=self.first, how=self.how)

    def last(self, batch: Mapping[str, Any]) -> Stream:
        """The last states of a batch: of its tokens and mask (B, T), or of its stored "hidden" states."""
        if "hidden" in batch:
            return self.upper(Stream(batch["hidden"], batch["mask"]))
        return self.upper(self.lower(batch["tokens"], batch["mask"]))

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """A batch of `Prompted` or `StoredStates` -> (B, C) logits."""
        last = self.last(batch)
        return self.head(last.text, last.text_mask, batch["place"])


def build(
    method: Method,
    encoder: nn.Module,
    head: nn.Module,
    *,
    layer: int,
    length: int,
    bottleneck: int,
    rank: int,
    start: Tensor,
    seed: int,
) -> PromptedClassifier:
    """A classifier of which only what `method` names is trained.

    | method | trained |
    | --- | --- |
    | naive, npg, appg, mppg | a prompt at `layer`: free, or generated (`make_prompt`) |
    | input | a free prompt before the first layer (prompt tuning) |
    | deep | a free prompt at every layer (P-tuning v2) |
    | lora | rank-`rank` updates of queries and values, through peft |
    | adapter | a bottleneck behind every layer |
    | bitfit | the biases |
    | full | everything |

    Args:
        layer: from 1 to L - 1; read by the first row alone.
        length: n, of every prompt.
        start: (>= n, D) states of words, what free prompts start from.

    Raises:
        InputError: no such layer or method.
    """
    torch.manual_seed(seed)
    if method not in get_args(Method):
        raise InputError(f"method {method!r}: expected one of {', '.join(get_args(Method))}")
    depth = PromptEncoder(encoder).depth
    if method in get_args(Kind):
        if not 0 < layer < depth:
            raise InputError(f"insertion layer {layer}: the encoder has layers 1 to {depth - 1} to insert at")
        prompts = {layer: make_prompt(method, start[:length], bottleneck=bottleneck)}  # type: ignore[arg-type]
    elif method in ("input", "deep"):
        layers = range(depth if method == "deep" else 1)
        prompts = {index: make_prompt("naive", start[:length], bottleneck=bottleneck) for index in layers}
    else:
        prompts = {}
    model = PromptedClassifier(encoder, head, prompts, how="replace" if method == "deep" else "add")
    if method in PROMPTS:
        model.freeze()
    elif method != "full":
        _train_part(method, model, bottleneck=bottleneck, rank=rank, seed=seed)
    return model


def _train_part(method: str, model: PromptedClassifier, *, bottleneck: int, rank: int, seed: int) -> None:
    """Freeze all but the part of `method`, in place."""
    inner = model.encoder.encoder
    model.head.requires_grad_(False)
    for module in inner.modules():  # frozen parts run without dropout, whatever is trained beside them
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if method == "adapter":
        add_adapters(inner, bottleneck, seed=seed)
    elif method == "bitfit":
        inner.requires_grad_(False)
        for name, parameter in inner.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
    else:
        from peft import LoraConfig, inject_adapter_in_model

        named = [name for name, _ in inner.named_modules()]
        targets = [n for n in ("query", "value", "q_lin", "v_lin") if any(name.endswith(f".{n}") for name in named)]
        inner.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), inner)


def word_states(encoder: Any, *, count: int, seed: int) -> Tensor:
    """(count, D) states of random words of the vocabulary where they enter layer 0, each as a text of one word."""
    generator = torch.Generator().manual_seed(seed)
    size = encoder.config.vocab_size
    ids = torch.randint(min(1000, size // 2), size, (count, 1), generator=generator).to(encoder.device)
    with torch.no_grad():
        return PromptEncoder(encoder).eval().start(ids, torch.ones_like(ids)).hidden[:, 0]


def trainable(model: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Cross-entropy of the labels, in nats."""
    return F.cross_entropy(model(batch).float(), batch["target"])
