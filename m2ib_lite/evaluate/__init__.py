"""What maps are worth: attributions and their pairs in, tidy tables of pair, modality, metric, value, chance, method out."""

from .attributions import METHODS, attribute
from .cost import cost
from .follow import follow
from .localise import localisation, occurrences

__all__ = ["METHODS", "attribute", "cost", "follow", "localisation", "occurrences"]
