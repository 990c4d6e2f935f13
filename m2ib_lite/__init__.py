"""M2IB attribution: what an image and its caption had to keep for a CLIP to match them.

from m2ib_lite import load_model, explain
attribution = explain(load_model("testbed"), images, captions)
"""

from .attribution import Attribution
from .explain import explain
from .exports import save
from .models import load_model
from .plots import plot_pair, plot_words
from .segments import find_segments
from .word_maps import WordMaps, explain_words

Attribution.plot = plot_pair  # here, because an import only points down and these stand above explain
Attribution.save = save
Attribution.segments = find_segments
WordMaps.plot = plot_words

__all__ = ["Attribution", "explain", "explain_words", "load_model"]
__version__ = "0.1.0"
