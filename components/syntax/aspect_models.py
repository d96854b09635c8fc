"""Aspect sentiment classifiers on word states: without a tree, and three that read one.

All take word states (B, N, D), a mask (B, N) of real words, a mask (B, N) of the aspect's words, and distances
(B, N, N) between words in the tree (N or more outside of it); all give logits (B, K). What they see of the words is
made by a `WordReader`. The models with a tree decide by what the tree shows them of the sentence: none has a path from
the aspect's own states to the output beside it, as in their papers.

Letters: B aspects, N words, D width of the states, H hidden width, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

FARTHEST = 5  # distances from here on count as one relation


def aspect_mean(states: Tensor, aspect: Tensor) -> Tensor:
    """Mean (B, D) over the aspect's words."""
    weight = aspect.to(states.dtype)
    return (states * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True)


def aspect_distance(distance: Tensor, aspect: Tensor) -> Tensor:
    """Distance (B, N) of each word to the nearest word of the aspect."""
    far = torch.full_like(distance, 10_000)
    return torch.where(aspect.unsqueeze(1), distance, far).amin(-1)


def proximity(steps: Tensor, mask: Tensor, aspect: Tensor) -> Tensor:
    """1 - steps / (words outside the aspect), (B, N); 0 for the aspect, for padding, and where it would be negative."""
    context = (mask & ~aspect).sum(-1, keepdim=True).clamp(min=1)
    return (1 - steps / context).clamp(min=0) * (mask & ~aspect)


def linear_steps(aspect: Tensor) -> Tensor:
    """Words (B, N) between each word and the nearest one of the aspect, in the order of the sentence."""
    place = torch.arange(aspect.shape[1], device=aspect.device)
    return aspect_distance((place[None, :] - place[:, None]).abs().expand(len(aspect), -1, -1), aspect)


class WordReader(nn.Module):
    """What a classifier sees of the words, (B, N, D) -> (B, N, H).

    Args:
        recurrent: for states of single words, which know nothing of their sentence: a BiLSTM, as all three papers have
            it; else, for states of a transformer, a layer without memory.
    """

    def __init__(self, width: int, hidden: int, recurrent: bool) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(0.3 if recurrent else 0.1)
        self.lstm = nn.LSTM(width, hidden // 2, bidirectional=True, batch_first=True) if recurrent else None
        self.linear = None if recurrent else nn.Linear(width, hidden)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """What is seen (B, N, H)."""
        if self.linear is not None:
            return self.dropout(torch.relu(self.linear(states)))
        assert self.lstm is not None
        packed = pack_padded_sequence(
            self.dropout(self.norm(states)), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=mask.shape[1])[0]


class MLP(nn.Module):
    """The baseline: the aspect's mean through one hidden layer; it reads no tree."""

    def __init__(self, width: int, hidden: int, classes: int, recurrent: bool) -> None:
        super().__init__()
        self.read = WordReader(width, hidden, recurrent)
        self.out = nn.Linear(hidden, classes)

    def forward(self, states: Tensor, mask: Tensor, aspect: Tensor, distance: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.out(aspect_mean(self.read(states, mask), aspect))


class ASGCN(nn.Module):
    """Graph convolutions over the tree, masked to the aspect, which then attends to all words (Zhang et al. 2019).

    Before each convolution words are weighed by their place in the sentence, nearer to the aspect is more.
    """

    def __init__(self, width: int, hidden: int, classes: int, recurrent: bool) -> None:
        super().__init__()
        self.read = WordReader(width, hidden, recurrent)
        self.convolutions = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(2, hidden))
        self.out = nn.Linear(hidden, classes)

    def forward(self, states: Tensor, mask: Tensor, aspect: Tensor, distance: Tensor) -> Tensor:
        """Logits (B, K)."""
        words = self.read(states, mask)
        both = mask.unsqueeze(1) & mask.unsqueeze(2)
        near = ((distance <= 1) & both).to(words.dtype)
        near = near / (near.sum(-1, keepdim=True) + 1)
        place = proximity(linear_steps(aspect), mask, aspect).unsqueeze(-1)
        convolved = words
        for convolution, bias in zip(self.convolutions, self.bias, strict=True):
            convolved = torch.relu(near @ convolution(convolved * place) + bias)
        query = (convolved * aspect.unsqueeze(-1)).sum(1)
        weight = (words @ query.unsqueeze(-1)).squeeze(-1).masked_fill(~mask, -1e9).softmax(-1)
        return self.out((words * weight.unsqueeze(-1)).sum(1))


class PWCN(nn.Module):
    """A convolution over words weighed by their proximity to the aspect in the tree (Zhang et al. 2019b)."""

    def __init__(self, width: int, hidden: int, classes: int, recurrent: bool) -> None:
        super().__init__()
        self.read = WordReader(width, hidden, recurrent)
        self.convolution = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.out = nn.Linear(hidden, classes)

    def forward(self, states: Tensor, mask: Tensor, aspect: Tensor, distance: Tensor) -> Tensor:
        """Logits (B, K)."""
        near = proximity(aspect_distance(distance, aspect), mask, aspect)
        weighed = self.read(states, mask) * near.unsqueeze(-1)
        convolved = torch.relu(self.convolution(weighed.transpose(1, 2))).transpose(1, 2)
        return self.out(convolved.masked_fill(~mask.unsqueeze(-1), 0.0).amax(1))


class RGAT(nn.Module):
    """The tree re-rooted at the aspect: it attends to all words, by content and by relation (Wang et al. 2020).

    Induced trees have no labels, so that a word's relation to the aspect is its distance, as for the words that the
    original model does not link directly.
    """

    def __init__(self, width: int, hidden: int, classes: int, recurrent: bool, heads: int = 4) -> None:
        super().__init__()
        self.read = WordReader(width, hidden, recurrent)
        self.query = nn.Linear(hidden, hidden)
        self.relation = nn.Embedding(FARTHEST + 1, hidden)
        self.gate = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, heads))
        self.out = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, classes))

    def forward(self, states: Tensor, mask: Tensor, aspect: Tensor, distance: Tensor) -> Tensor:
        """Logits (B, K)."""
        words = self.read(states, mask)
        content = (words @ self.query(aspect_mean(words, aspect)).unsqueeze(-1)) / words.shape[-1] ** 0.5
        related = self.gate(self.relation(aspect_distance(distance, aspect).clamp(max=FARTHEST)))
        outside = (~mask).unsqueeze(-1)
        by_content, by_relation = (
            F.softmax(score.masked_fill(outside, -1e9), dim=1).transpose(1, 2) @ words for score in (content, related)
        )
        return self.out(torch.cat([by_relation.amax(1), by_content.amax(1)], dim=-1))


MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "asgcn": ASGCN, "pwcn": PWCN, "rgat": RGAT}
