"""Teacher-forced agreement: what two models would say next after the same tokens.

No sampling comes between, so this sees differences that no listening test could, and it is the
same on every run. How much of it is heard is another question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Agreement:
    """Sums over `count` choices; see the properties for what they mean."""

    count: int = 0
    divergence: float = 0.0
    same: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.count + other.count,
            self.divergence + other.divergence,
            self.same + other.same,
        )

    @property
    def kl_nats(self) -> float:
        """Mean Kullback-Leibler divergence of the candidate from the reference, in nats."""
        return self.divergence / self.count

    @property
    def top1(self) -> float:
        """Share of choices where both hold the same one for the most probable."""
        return self.same / self.count


def agreement(reference: Tensor, candidate: Tensor) -> Agreement:
    """Of logits [n, choices] of both. ValueError if their shapes differ."""
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes {tuple(reference.shape)} and {tuple(candidate.shape)} differ")
    wanted, found = (x.double().log_softmax(-1) for x in (reference, candidate))
    # what the reference rules out adds nothing, whatever the candidate thinks of it
    terms = (wanted.exp() * (wanted - found)).nan_to_num(nan=0.0)
    same = reference.argmax(-1) == candidate.argmax(-1)
    return Agreement(len(reference), float(terms.sum()), int(same.sum()))
