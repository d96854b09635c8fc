"""Aspect sentiment classifiers on word states: without a tree, and three that read one.

All take word states (B, N, D), a mask (B, N) of real words, a mask (B, N) of the aspect's words, and distances
(B, N, N) between words in the tree (N or more outside of it); all give logits (B, K).

Letters: B aspects, N words, D width of the states, H hidden width, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FARTHEST = 5  # distances from here on count as one relation


def aspect_mean(states: Tensor, aspect: Tensor) -> Tensor:
    """Mean (B, D) over the aspect's words."""
    weight = aspect.to(states.dtype)
    return (states * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True)


def aspect_distance(distance: Tensor, aspect: Tensor) -> Tensor:
    """Distance (B, N) of each word to the nearest word of the aspect."""
    far = torch.full_like(distance, 10_000)
    return torch.where(aspect.unsqueeze(1), distance, far).amin(-1)


class MLP(nn.Module):
    """The baseline: the aspect's mean through one hidden layer; it reads no tree."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.inner, self.out, self.dropout = nn.Linear(width, hidden), nn.Linear(hidden, classes), nn.Dropout(0.1)

    def forward(self, states: Tensor, mask: Tensor, aspect: Tensor, distance: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.out(self.dropout(torch.relu(self.inner(aspect_mean(states, aspect)))))


class ASGCN(nn.Module):
    """Graph convolutions over the tree, masked to the aspect, which then attends to all words (Zhang et al. 2019)."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.inner, self.dropout = nn.Linear(width, hidden), nn.Dropout(0.1)
        self.convolutions = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2))
        self.out = nn.Linear(hidden, classes)

    def forward(self, states: Tensor, mask: Tensor, aspect: Tensor, distance: Tensor) -> Tensor:
        """Logits (B, K)."""
        words = self.dropout(torch.relu(self.inner(states)))
        both = mask.unsqueeze(1) & mask.unsqueeze(2)
        near = ((distance <= 1) & both).to(words.dtype)
        near = near / near.sum(-1, keepdim=True).clamp(min=1)
        convolved = words
        for convolution in self.convolutions:
            convolved = torch.relu(near @ convolution(convolved))
        query = (convolved * aspect.unsqueeze(-1)).sum(1)
        weight = (words @ query.unsqueeze(-1)).squeeze(-1) / words.shape[-1] ** 0.5
        weight = weight.masked_fill(~mask, -1e9).softmax(-1)
        return self.out(self.dropout((words * weight.unsqueeze(-1)).sum(1)))


class PWCN(nn.Module):
    """Convolutions over words weighted by their proximity to the aspect in the tree (Zhang et al. 2019b)."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.inner, self.dropout = nn.Linear(width, hidden), nn.Dropout(0.1)
        self.convolutions = nn.ModuleList(nn.Conv1d(hidden, hidden, 3, padding=1) for _ in range(2))
        self.out = nn.Linear(hidden, classes)

    def forward(self, states: Tensor, mask: Tensor, aspect: Tensor, distance: Tensor) -> Tensor:
        """Logits (B, K)."""
        length = mask.sum(-1, keepdim=True)
        near = (1 - aspect_distance(distance, aspect) / length).clamp(min=0) * (mask & ~aspect)
        words = self.dropout(torch.relu(self.inner(states)))
        convolved = words * near.unsqueeze(-1)
        for convolution in self.convolutions:
            convolved = torch.relu(convolution(convolved.transpose(1, 2)).transpose(1, 2)) * near.unsqueeze(-1)
        best = convolved.masked_fill(~mask.unsqueeze(-1), 0.0).amax(1)
        return self.out(self.dropout(best + aspect_mean(words, aspect)))


class RGAT(nn.Module):
    """The tree re-rooted at the aspect: it attends to all words, by content and by distance (Wang et al. 2020).

    Induced trees have no labels, so that a word's relation to the aspect is its distance, as for the words that the
    original model does not link directly.
    """

    def __init__(self, width: int, hidden: int, classes: int, heads: int = 4) -> None:
        super().__init__()
        self.inner, self.dropout, self.heads = nn.Linear(width, hidden), nn.Dropout(0.1), heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.relation = nn.Embedding(FARTHEST + 1, hidden)
        self.gate = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, heads))
        self.out = nn.Linear(3 * hidden, classes)

    def forward(self, states: Tensor, mask: Tensor, aspect: Tensor, distance: Tensor) -> Tensor:
        """Logits (B, K)."""
        words = self.dropout(torch.relu(self.inner(states)))
        centre = aspect_mean(words, aspect)
        batch, count, hidden = words.shape
        shape = (batch, count, self.heads, hidden // self.heads)
        value = self.value(words).view(shape)
        content = (self.key(words).view(shape) * self.query(centre).view(batch, 1, *shape[2:])).sum(-1)
        content = content / shape[-1] ** 0.5
        steps = aspect_distance(distance, aspect).clamp(max=FARTHEST)
        related = self.gate(self.relation(steps))
        outside = ~(mask & ~aspect).unsqueeze(-1)
        outside = outside & ~outside.all(1, keepdim=True)
        views = [
            (F.softmax(score.masked_fill(outside, -1e9), dim=1).unsqueeze(-1) * value).sum(1).flatten(1)
            for score in (content, related)
        ]
        return self.out(self.dropout(torch.cat([centre, *views], dim=-1)))


MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "asgcn": ASGCN, "pwcn": PWCN, "rgat": RGAT}
