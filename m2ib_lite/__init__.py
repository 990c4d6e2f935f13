"""M2IB attribution: what an image and its caption had to keep for a CLIP to match them.

from m2ib_lite import load_model, explain
attribution = explain(load_model("testbed"), images, captions)
"""

from .explain import Attribution, explain
from .models import load_model
from .plots import plot_pair

Attribution.plot = plot_pair  # here, because an import only points down and plots stands above explain

__all__ = ["Attribution", "explain", "load_model"]
