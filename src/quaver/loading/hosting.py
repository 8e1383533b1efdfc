"""Text on the host: most of a token table is read once a request, so it need not be on the GPU.

Of Orpheus-3B's 156,940 rows speech reads and writes 28,684. The others are 0.79 GB in bf16.
"""

from __future__ import annotations

from typing import cast

from torch import nn

from quaver.families.orpheus.model import Orpheus
from quaver.quant.embedding import QuantisedEmbedding
from quaver.quant.layer import kept


def keep_text_on_host(model: Orpheus) -> None:
    """Leave on the model's device only the rows of table and head that speech needs."""
    table = cast("nn.Embedding | QuantisedEmbedding", model.embed)
    if isinstance(table, QuantisedEmbedding):
        host: nn.Module = table.host_copy()
    else:
        host = nn.Embedding.from_pretrained(table.weight.detach().cpu())
    model.keep_on_host(host, drop_text_rows(model))


def drop_text_rows(model: Orpheus) -> int:
    """Drop what comes before the first control token from table and head; returns how many rows."""
    table, head = model.embed, model.head
    count = model.config.speech.tokens.custom_token_base
    tied = table.weight is head.weight
    head.drop_rows(count)
    for name, weight in list(table.named_parameters()):
        own = head.get_parameter(name) if tied else kept(weight[count:].clone())
        setattr(table, name, own)
    return count
