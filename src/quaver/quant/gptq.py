"""int4 by GPTQ: columns are rounded one after the other, and each error is made up for by the
columns still to come, as far as the calibration's inputs allow (Frantar et al., 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from quaver.core.errors import InputError
from quaver.precision import Format
from quaver.precision.weight import QuantisedWeight
from quaver.quant.int4 import GROUP, Int4Linear, best_scale, pack, to_whole

DAMPING = 0.01  # of the mean of the diagonal, as in the paper
MORE_DAMPING = (1.0, 10.0, 100.0)  # where rounding leaves the matrix without a root


def gptq(weight: Tensor, products: Tensor) -> QuantisedWeight:
    """A weight [out, in] and the sum of its inputs' outer products [in, in] -> int4."""
    Int4Linear.check(weight.shape)
    root = _inverse_root(products)
    left = weight.detach().float().clone()
    whole, scales = torch.empty_like(left), []
    for start in range(0, left.shape[1], GROUP):
        stop = start + GROUP
        group, corner = left[:, start:stop].clone(), root[start:stop, start:stop]
        scale = best_scale(group)
        errors = torch.empty_like(group)
        for i in range(GROUP):
            column = group[:, i : i + 1]
            rounded = to_whole(column, scale)
            error = (column - rounded * scale.float()) / corner[i, i]
            group[:, i + 1 :] -= error * corner[i, i + 1 :]
            whole[:, start + i], errors[:, i] = rounded[:, 0], error[:, 0]
        left[:, stop:] -= errors @ root[start:stop, stop:]
        scales.append(scale)
    return QuantisedWeight(Format.INT4, pack(whole), torch.cat(scales, dim=1))


def _inverse_root(products: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse, fp32 [in, in]."""
    matrix = products.double()
    diagonal = matrix.diagonal()
    mean = diagonal.mean()
    if not mean > 0:
        return torch.eye(len(matrix), device=products.device)  # it saw zeros only
    diagonal[diagonal == 0] = mean  # inputs that were never there
    for factor in MORE_DAMPING:
        diagonal += DAMPING * factor * mean
        lower, failed = torch.linalg.cholesky_ex(matrix)
        if failed:
            continue
        root, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            return root.float()
    raise InputError("the inputs that were seen are too alike for GPTQ; calibrate on more texts")
