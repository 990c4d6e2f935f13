"""Load a CLIP, encode with it, and run one tower from a block on; the only place that knows transformers."""

from .clip import Captions, Clip, default_layer
from .load import BUILT_IN, TESTBED, load_model, pick_device
from .siglip import Siglip
from .towers import Tower

__all__ = ["BUILT_IN", "TESTBED", "Captions", "Clip", "Siglip", "Tower", "default_layer", "load_model", "pick_device"]
