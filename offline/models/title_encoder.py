"""The title encoder: one LSTM embeds queries and titles into one space; its triplet loss (Amazon 2024, §4.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.generation import TEXT_SIZE


class TitleEncoderNetwork(nn.Module):
    """Token ids int64 (B, T), padded at the end, and lengths int (B), 1 ≤ length ≤ T → embeddings (B, 128), length 1.

    The embedding is read from the LSTM's output at a text's own last token, so that padding never counts.
    """

    def __init__(self, vocabulary: int, embedding: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        with torch.no_grad():  # forget gates start open (gate order of torch: input, forget, cell, output)
            self.lstm.get_parameter("bias_ih_l0")[hidden : 2 * hidden] = 1.0
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(hidden, TEXT_SIZE)

    def forward(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        output, _ = self.lstm(self.dropout(self.embedding(token_ids)))  # (B, T, H)
        last = output[torch.arange(len(output), device=output.device), lengths.long() - 1]  # (B, H)
        return F.normalize(self.project(self.dropout(last)).float(), dim=-1)


def triplet_loss(queries: Tensor, titles: Tensor, query: Tensor, title: Tensor, wrong: Tensor, margin: float) -> Tensor:
    """Loss (B) of B positive pairs, each with two hard negatives (§4.4).

    ``queries`` (U, 128) and ``titles`` (W, 128) are the batch's different texts, of length 1; pair i is
    ``queries[query[i]]``, ``titles[title[i]]``; ``wrong`` bool (U, W): the title was never bought from the query.
    With s the cosine, t* the wrong title closest to q and q* the wrong query closest to t:

        max(0, margin − s(q, t) + s(q, t*)) + max(0, margin − s(q, t) + s(q*, t))

    A pair for which there is no wrong title, or query, has that part at 0.
    """
    cosine = queries @ titles.T  # (U, W)
    among_wrong = cosine.masked_fill(~wrong, float("-inf"))
    wrong_title = among_wrong.amax(dim=1)[query]  # (B)
    wrong_query = among_wrong.amax(dim=0)[title]
    right = cosine[query, title]
    return F.relu(margin - right + wrong_title) + F.relu(margin - right + wrong_query)
