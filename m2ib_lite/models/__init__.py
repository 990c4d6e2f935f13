"""Load a CLIP, encode with it, and run one tower from a block on; the only place that knows transformers."""

from .clip import Captions, Clip, check_caption, default_layer
from .load import BUILT_IN, TESTBED, has_bfloat16, load_model, pick_device
from .siglip import Siglip
from .towers import Tower

__all__ = ["BUILT_IN", "TESTBED", "Captions", "Clip", "Siglip", "Tower"]
__all__ += ["check_caption", "default_layer", "has_bfloat16", "load_model", "pick_device"]
