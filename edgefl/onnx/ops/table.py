"""What each ONNX op becomes in the plan: the families' tables as one.

A function receives the trace, the node and the node's inputs (None for one that is left out). It returns the node's
outputs: one item or a tuple of items. It refuses everything that the plan's ops can't compute exactly.

To add an op: write its function in its family's file and give it a line in the table at the end of that file.
"""

from __future__ import annotations

from ..items import Handler
from .activation import ACTIVATION_OPS
from .arithmetic import ARITHMETIC_OPS
from .cast import CAST_OPS
from .concat import CONCAT_OPS
from .condition import CONDITION_OPS, COUNTS, MOVES, counting, moving
from .conv import CONV_OPS
from .conv_transpose import CONV_TRANSPOSE_OPS
from .dense import DENSE_OPS
from .depth import DEPTH_OPS
from .expand import EXPAND_OPS
from .group_norm import GROUP_NORM_OPS
from .lrn import LRN_OPS
from .microsoft import MICROSOFT_OPS
from .ml import ML_OPS
from .norm import NORM_OPS
from .one_vs_rest import ONE_VS_REST_OPS
from .pad import PAD_OPS
from .passing import PASSING_OPS
from .pool import POOL_OPS
from .recurrent import RECURRENT_OPS
from .reduce import REDUCE_OPS
from .resize import RESIZE_OPS
from .sequence import SEQUENCE_OPS
from .shape import SHAPE_OPS
from .where import WHERE_OPS

OPS: dict[str, Handler] = {
    **ACTIVATION_OPS,
    **ARITHMETIC_OPS,
    **CAST_OPS,
    **CONCAT_OPS,
    **CONDITION_OPS,
    **CONV_OPS,
    **CONV_TRANSPOSE_OPS,
    **DENSE_OPS,
    **DEPTH_OPS,
    **EXPAND_OPS,
    **LRN_OPS,
    **GROUP_NORM_OPS,
    **MICROSOFT_OPS,
    **ML_OPS,
    **NORM_OPS,
    **ONE_VS_REST_OPS,
    **PAD_OPS,
    **PASSING_OPS,
    **POOL_OPS,
    **RECURRENT_OPS,
    **REDUCE_OPS,
    **RESIZE_OPS,
    **SEQUENCE_OPS,
    **SHAPE_OPS,
    **WHERE_OPS,
}
OPS |= {name: moving(OPS[name]) for name in MOVES} | {name: counting(OPS[name]) for name in COUNTS}
