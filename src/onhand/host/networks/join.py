"""Networks with what stands before, behind and beside them, in one graph."""

from onhand.host.networks.joining.before import with_preprocessing
from onhand.host.networks.joining.behind import POSTPROCESSING, decode_cells, with_postprocessing
from onhand.host.networks.joining.together import cascade, share_trunk

__all__ = [
    "POSTPROCESSING",
    "cascade",
    "decode_cells",
    "share_trunk",
    "with_postprocessing",
    "with_preprocessing",
]
