"""The other methods, asked the same question on the same pair: y = cosine(image embedding, text embedding).

Each is written for one tower, Side -> one vector of scores a pair, and `rival` makes of it a method that is used as `explain`:
(clip, images, captions=None, *, batch_size=8, progress=True, modality="both", against=None, **options) -> Attribution.  All but
LeGrad have a text form.  An option is one value or a pair (image, text); left out, it is the model's own, from its settings.json,
or as published, which is the default in the signature.
Maps hold the patches and the content tokens; CLS, BOS, EOS and padding are never part of them.  A result depends on
(pair, options, seed) alone; the model comes back as it was.  ValueError as `explain`, or for a bad option.
"""

from .gradients import chefer, gradcam, gradeclip, legrad, nib, saliency
from .perturbations import enlarge, kernelshap, random, rise

RIVALS = {method.__name__: method for method in (saliency, gradcam, kernelshap, rise, chefer, nib, gradeclip, legrad, random)}

__all__ = ["RIVALS", "enlarge"]
