"""The Orpheus language model: a Llama that speaks in frames of seven codes.

One step makes one frame: seven passes of the backbone, each reading only the head rows that are
legal at its position (4,096 of 156,940 in the released model), so no frame can be malformed and
the head costs little. The model may stop only between frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from quaver.core.protocols import CacheSpec, Frame
from quaver.families.orpheus.config import OrpheusConfig
from quaver.nn.linear import embedding, linear
from quaver.nn.sent import sent
from quaver.nn.transformer import Transformer
from quaver.precision import Recipe, Role

if TYPE_CHECKING:
    from quaver.core.protocols import Choose, KVStore


class Orpheus(nn.Module):
    """Tokens in, frames out. Weights are uninitialised until loaded."""

    def __init__(self, config: OrpheusConfig, recipe: Recipe) -> None:
        super().__init__()
        self.config = config
        self.layout = config.speech.tokens.layout
        width = config.transformer.hidden_size
        self.embed = embedding(config.vocab_size, width, recipe)
        self.backbone = Transformer(config.transformer, Role.BACKBONE, recipe)
        self.head = linear(width, config.vocab_size, Role.HEAD, recipe)
        if config.tie_word_embeddings:
            self.head.weight = cast("nn.Parameter", self.embed.weight)
        # On the device, table and head may start at a later row, and the whole table elsewhere.
        self.first_row = 0
        self._host_table: tuple[nn.Module] | None = None  # not a child: it stays where it is
        self._dtype = recipe.format(Role.BACKBONE).dtype
        # of keys and values, [layers, 2], where a checkpoint was calibrated for fp8
        self.kv_scales: Tensor | None = None
        # counted now: quantised layers will keep several weights in one number
        self.parameter_count = sum(parameter.numel() for parameter in self.parameters())

    @property
    def choices(self) -> tuple[int, ...]:
        """Codes at each position; one more at the first, which is to stop."""
        size = self.layout.codebook_size
        return (size + 1,) + (size,) * (self.layout.codes_per_frame - 1)

    @property
    def hidden_size(self) -> int:
        return self.config.transformer.hidden_size

    @property
    def max_positions(self) -> int:
        return self.config.transformer.max_position_embeddings

    @property
    def positions_per_frame(self) -> int:
        return self.layout.codes_per_frame

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one token reads: the backbone, and the head's legal rows."""
        head = sum(weight.nbytes for weight in self.head.parameters())
        legal = head * self.layout.codebook_size // (self.config.vocab_size - self.first_row)
        return sum(weight.nbytes for weight in self.backbone.parameters()) + legal

    @property
    def step_weights(self) -> int:
        """Numbers that one token is multiplied by, in whatever format they are."""
        shape = self.config.transformer
        width, heads, pairs = (
            shape.hidden_size,
            shape.num_attention_heads,
            shape.num_key_value_heads,
        )
        attention = 2 * (heads + pairs) * shape.head_dim * width
        layer = attention + 3 * width * shape.intermediate_size
        return shape.num_hidden_layers * layer + self.layout.codebook_size * width

    @property
    def weights(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers()]

    @property
    def cache_spec(self) -> CacheSpec:
        shape = self.config.transformer
        return CacheSpec(shape.num_hidden_layers, shape.num_key_value_heads, shape.head_dim)

    def forward(self, tokens: Tensor, store: KVStore | None = None) -> Tensor:
        """Tokens [n, t] -> logits [n, t, vocab] over the whole vocabulary, fp32. For a model that
        has all of it on its device."""
        assert self.first_row == 0, "the head is not whole"
        hidden = self.hidden(tokens, store)
        logits: Tensor = self.head(hidden.to(self.head.dtype), norm=self.backbone.norm)
        return logits.float()

    def forced(self, tokens: Tensor, spoken: int, store: KVStore | None = None) -> list[Tensor]:
        """What the model would say where it is told what was said.

        Tokens [1, t] whose last `spoken` are whole frames -> for each position in the frame, fp32
        logits [frames, choices].
        """
        hidden = self.hidden(tokens[:, :-1], store)[0, -spoken:]
        each = self.layout.codes_per_frame
        parts = range(each)
        return [self.logits(hidden[position::each], position).float() for position in parts]

    def hidden(self, tokens: Tensor, store: KVStore | None = None) -> Tensor:
        """Tokens [n, t] -> hidden states [n, t, width] before the last norm."""
        place = self.embed.weight.device if store is None else store.positions.device
        return self._read(self._rows(tokens, place), store)

    def keep_on_host(self, table: nn.Module, first_row: int) -> None:
        """Read prompts from `table`, on the CPU. Table and head on the device start at row
        `first_row`: only tokens that speech is made of are read and written there."""
        self._host_table, self.first_row = (table,), first_row

    def take_table(self, other: Orpheus) -> None:
        """Read tokens from the table of `other`, a model of the same shape."""
        self.embed, self._host_table = other.embed, other._host_table

    def embedded(self, prompt: Tensor) -> Tensor:
        """Prompt tokens [1, t], on the host -> rows of the table [1, t, width], on the device."""
        return self._rows(prompt, next(self.backbone.parameters()).device)

    def prefill(self, embedded: Tensor, store: KVStore) -> Tensor:
        """Rows [1, t, width] -> hidden states [1, t, width]."""
        hidden = self._read(embedded, store)
        store.advance()
        return hidden

    def frame(self, hidden: Tensor, store: KVStore, choose: Choose) -> Frame:
        """Hidden states [n, width] -> one frame for each of n streams."""
        size = self.layout.codebook_size
        codes = []
        stopped = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
        for position in range(self.layout.codes_per_frame):
            choice = choose(position, self.logits(hidden, position))
            if position == 0:
                stopped = choice == size
            codes.append(choice)
            hidden = self._read(self._said(choice, position), store)[:, 0]
            store.advance()
        return Frame(torch.stack(codes, dim=1), stopped, hidden)

    def logits(self, hidden: Tensor, position: int) -> Tensor:
        """Hidden states [n, width] -> logits [n, choices] of what is legal at `position`."""
        first = self.layout.first(position) - self.first_row
        hidden, norm = hidden.to(self.head.dtype), self.backbone.norm
        logits = self.head(hidden, norm=norm, only=(first, first + self.layout.codebook_size))
        if position == 0:
            stop = self.config.speech.tokens.end_of_speech - self.first_row
            logits = torch.cat((logits, self.head(hidden, norm=norm, only=(stop, stop + 1))), -1)
        return logits

    def _said(self, choice: Tensor, position: int) -> Tensor:
        """Choices [n] at a position in the frame -> rows of the table [n, 1, width]."""
        first, size = self.layout.first(position) - self.first_row, self.layout.codebook_size
        stop = self.config.speech.tokens.end_of_speech - self.first_row
        if self.head.fused and type(self.embed) is nn.Embedding:  # a quantised table unpacks rows
            # only builds of torch for GPUs bring Triton
            from quaver.nn.kernels.lookup import lookup

            return lookup(self.embed.weight, choice, first, size - 1, stop)[:, None]
        tokens = choice + first
        if position == 0:
            tokens = torch.where(choice == size, stop, tokens)
        rows: Tensor = self.embed(tokens[:, None])
        return rows

    def _rows(self, tokens: Tensor, place: torch.device) -> Tensor:
        """Rows of the whole table, wherever that is, on the device that computes."""
        if self._host_table is None:
            return self.embed(sent(tokens, place))
        rows: Tensor = self._host_table[0](tokens.cpu())
        return sent(rows, place)

    def _read(self, embedded: Tensor, store: KVStore | None) -> Tensor:
        """Rows of the table [n, t, width] -> hidden states [n, t, width] before the last norm."""
        x = embedded.to(self._dtype)
        hidden: Tensor = self.backbone(x) if store is None else store.through(self.backbone, x)
        return hidden
