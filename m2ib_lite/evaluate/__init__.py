"""What maps are worth: attributions and their pairs in, tidy tables of pair, modality, metric, value, chance, method out."""

from .attributions import METHODS, attribute
from .degrade import confidence
from .localise import localisation
from .roar import roar

__all__ = ["METHODS", "attribute", "confidence", "localisation", "roar"]
