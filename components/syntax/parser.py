"""A small dependency parser: biaffine attention on the states of a frozen encoder (Dozat and Manning 2017).

Letters: B sentences, N words, L layers, D width, H hidden width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BiaffineParser(nn.Module):
    """Scores of every word as head of every other, from a learned mix of the encoder's layers.

    Args:
        layers, width: of the states, (B, N, L, D).
        hidden: width of the head and dependent views.
    """

    def __init__(self, layers: int, width: int, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(layers))
        self.encoder = nn.LSTM(width, hidden, bidirectional=True, batch_first=True)
        self.head, self.dependent = nn.Linear(2 * hidden, hidden), nn.Linear(2 * hidden, hidden)
        self.bilinear = nn.Parameter(torch.zeros(hidden + 1, hidden))
        self.root = nn.Parameter(torch.zeros(1, 1, hidden))
        self.dropout = nn.Dropout(0.3)
        nn.init.xavier_uniform_(self.bilinear)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Scores (B, N + 1, N): row 0 is the root, row h word h - 1; padding is not a head.

        Args:
            states: (B, N, L, D); mask: (B, N) bool.
        """
        mixed = torch.einsum("bnld,l->bnd", states, self.mix.softmax(0))
        packed = pack_padded_sequence(self.dropout(mixed), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        context = pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=mask.shape[1])[0]
        context = self.dropout(context)
        head = torch.cat([self.root.expand(len(states), 1, -1), torch.relu(self.head(context))], 1)
        dependent = torch.relu(self.dependent(context))
        dependent = torch.cat([dependent, torch.ones_like(dependent[..., :1])], -1)
        scores = head @ (dependent @ self.bilinear).transpose(1, 2)
        real = torch.cat([torch.ones_like(mask[:, :1]), mask], 1)
        return scores.masked_fill(~real.unsqueeze(-1), -1e9)


def parser_loss(scores: Tensor, heads: Tensor) -> Tensor:
    """Cross-entropy of the gold heads (B, N): 0 the root, h word h - 1, -100 padding."""
    return F.cross_entropy(scores, heads, ignore_index=-100)
