"""Several models that answer as one: by the mean of their probabilities, or by vote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOICE = 1e-3  # What the mean weighs beside the votes: it settles ties, and no majority of fewer than 1,000 models.

By = Literal["mean", "vote"]


class ShardEnsemble(nn.Module):
    """Logits whose probabilities are the mean of the members', or the shares of their votes.

    With ``by="vote"`` ties go to the class of the largest mean probability.

    Args:
        members: Models that return logits ``(B, C, ...)`` of one shape.
        by: "mean" or "vote".
        apart: Whether each output decides by itself, on a finding; a single output always does.
    """

    def __init__(self, members: Sequence[nn.Module], by: By = "mean", *, apart: bool = False) -> None:
        super().__init__()
        self.members, self.by, self.apart = nn.ModuleList(members), by, apart

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, C, ...)``."""
        logits = torch.stack([member(x) for member in self.members])
        if self.apart or logits.shape[2] == 1:
            present, absent = _mean_log(F.logsigmoid(logits)), _mean_log(F.logsigmoid(-logits))
            if self.by == "vote":
                votes = (logits > 0).to(logits).mean(0)
                present, absent = _swayed(votes, present), _swayed(1 - votes, absent)
            return present - absent
        mean = _mean_log(logits.log_softmax(2))
        if self.by == "mean":
            return mean
        votes = F.one_hot(logits.argmax(2), logits.shape[2]).movedim(-1, 2).to(logits).mean(0)
        return _swayed(votes, mean)


def _mean_log(logs: Tensor) -> Tensor:
    """Return the logarithm of the mean over the first dimension of what ``logs`` are logarithms of."""
    return logs.logsumexp(0) - math.log(len(logs))


def _swayed(votes: Tensor, log_mean: Tensor) -> Tensor:
    """Return the logarithm of the votes' shares with a little of the mean; finite where nobody voted."""
    return torch.logaddexp(((1 - VOICE) * votes).log(), log_mean + math.log(VOICE))
