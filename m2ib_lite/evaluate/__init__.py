"""What maps are worth: attributions and their pairs in, tidy tables of pair, modality, metric, value, chance, method out."""

from .attributions import METHODS, attribute
from .localise import localisation
from .sanity import agreement, cascade, randomised, stages

__all__ = ["METHODS", "agreement", "attribute", "cascade", "localisation", "randomised", "stages"]
