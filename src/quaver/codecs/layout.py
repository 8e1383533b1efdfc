"""`CodeLayout`: frames of codes to language-model tokens and back, a bijection.

A frame of a multi-scale codec has one code of the coarsest book and more of the finer ones, in an
order that interleaves them by time. Position p of a frame owns its own range of `codebook_size`
tokens, so a token says which position it belongs to, and code 0 is as good as any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quaver.core.errors import InputError

# Orpheus's order: the codebook of each position, fine codes beside the coarse ones they refine.
SNAC_ORDER = (0, 1, 2, 2, 1, 2, 2)


@dataclass(frozen=True, slots=True)
class CodeLayout:
    """Where each position's codes lie among the tokens."""

    first_token: int  # token of code 0 at position 0
    codebook_size: int
    order: tuple[int, ...] = SNAC_ORDER

    @property
    def codes_per_frame(self) -> int:
        return len(self.order)

    @property
    def end_token(self) -> int:
        """One past the last token of the last position."""
        return self.first_token + self.codes_per_frame * self.codebook_size

    def first(self, position: int) -> int:
        """Token of code 0 at `position`."""
        return self.first_token + position * self.codebook_size

    def to_tokens(self, frames: Tensor) -> Tensor:
        """Codes [..., codes_per_frame] -> tokens of the same shape. InputError outside the book."""
        if frames.shape[-1] != self.codes_per_frame:
            raise InputError(
                f"frames have {frames.shape[-1]} codes; this layout has {self.codes_per_frame}"
            )
        if frames.numel() and not bool(((frames >= 0) & (frames < self.codebook_size)).all()):
            raise InputError(f"codes outside 0..{self.codebook_size - 1}")
        return frames + self._offsets(frames.device)

    def to_frames(self, tokens: Tensor) -> Tensor:
        """Tokens [n * codes_per_frame] -> codes [n, codes_per_frame]. InputError where a token
        does not belong to its position."""
        if tokens.ndim != 1 or len(tokens) % self.codes_per_frame:
            raise InputError(
                f"{tuple(tokens.shape)} tokens are not whole frames of {self.codes_per_frame}"
            )
        frames = tokens.view(-1, self.codes_per_frame) - self._offsets(tokens.device)
        wrong = (frames < 0) | (frames >= self.codebook_size)
        if bool(wrong.any()):
            frame, position = wrong.nonzero()[0].tolist()
            token = int(tokens[frame * self.codes_per_frame + position])
            raise InputError(
                f"token {token} at position {position} of frame {frame} is not in "
                f"{self.first(position)}..{self.first(position) + self.codebook_size - 1}"
            )
        return frames

    def to_codebooks(self, frames: Tensor) -> list[Tensor]:
        """Frames [..., n, codes_per_frame] -> per codebook [..., n * codes of it in a frame]."""
        # no index by a list, which would be copied to the device each time
        return [
            torch.stack([frames[..., at] for at in self._positions(book)], dim=-1).flatten(-2)
            for book in range(max(self.order) + 1)
        ]

    def from_codebooks(self, codebooks: list[Tensor]) -> Tensor:
        """The inverse of `to_codebooks`."""
        count = codebooks[0].shape[-1] // len(self._positions(0))
        frames = codebooks[0].new_empty((*codebooks[0].shape[:-1], count, self.codes_per_frame))
        for book, codes in enumerate(codebooks):
            positions = self._positions(book)
            frames[..., positions] = codes.unflatten(-1, (count, len(positions)))
        return frames

    def _positions(self, book: int) -> list[int]:
        return [p for p, b in enumerate(self.order) if b == book]

    def _offsets(self, device: torch.device) -> Tensor:
        return self.first_token + self.codebook_size * torch.arange(
            self.codes_per_frame, device=device
        )
