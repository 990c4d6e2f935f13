"""What maps are worth: attributions and their pairs in, tidy tables of pair, modality, metric, value, chance, method out."""

from .attributions import METHODS, SETTINGS, SLOW, all_options, attribute, attribute_all, digest, method_options, sources, versions
from .cost import cost
from .degrade import confidence
from .follow import follow
from .localise import localisation, occurrences, word_game, word_heats
from .planted import effects, judge_audit, on_patches, on_phrase, paint
from .roar import roar
from .sanity import agreement, cascade, randomised, stages
from .suspects import Audit, audit, take_out

__all__ = ["METHODS", "SETTINGS", "SLOW", "all_options", "attribute", "attribute_all", "digest", "method_options", "sources"]
__all__ += ["agreement", "cascade", "confidence", "cost", "follow", "localisation", "occurrences", "randomised", "roar"]
__all__ += ["Audit", "audit", "effects", "judge_audit", "on_patches", "on_phrase", "paint", "take_out", "word_game", "word_heats"]
__all__ += ["stages", "versions"]
