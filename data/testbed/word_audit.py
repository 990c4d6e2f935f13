"""What an audit by word maps says: each word of each caption has a map of its own, by every method but the two that mask.

    python data/testbed/word_audit.py     # 40 minutes on 2 cores; tables that are in build/word_audit are not made again

Writes data/expected/word_audit.csv, which notebook 09 shows: a row for each twin, settings, method, word and marker that is judged
in N_FILMS films.
"""

from itertools import product

import pandas as pd
from draw import SEED
from strengths import N_FILMS, ROOT, effects_of_all, judge_markers

from m2ib_lite import explain_words, load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.evaluate import SETTINGS, SLOW, audit, method_options
from m2ib_lite.files import written_whole
from m2ib_lite.rivals import RIVALS

NAMES = {"M2IB": "M2IB"} | {method.title: name for name, method in RIVALS.items() if method.title not in SLOW}
KEPT = ROOT / "build" / "word_audit"


def study(clip, films, moved, method, settings):
    """The words and markers that an audit by these word maps judges, read where an earlier run left them."""
    kept = KEPT / f"{clip.name}-{settings}-{method}.csv"
    if not kept.exists():
        options = method_options(clip, settings, SEED, medical=True)[method]
        maps = [explain_words(clip, film, method=NAMES[method], **options) for film in films]
        with written_whole(kept) as part:
            judge_markers(audit(clip, films, maps, seed=SEED), films, moved).to_csv(part, index=False)
    return pd.read_csv(kept).assign(twin=clip.name.removeprefix("radiographs-"), settings=settings, method=method)


if __name__ == "__main__":
    KEPT.mkdir(parents=True, exist_ok=True)
    films, plain = (list(load_pairs(name, N_FILMS)) for name in ("shortcuts", "shortcuts_plain"))
    clips = [load_model(f"radiographs-{twin}") for twin in ("biased", "clean")]
    moved = {clip.name: effects_of_all(clip, plain) for clip in clips}
    asked = product(clips, NAMES, SETTINGS)
    tables = [study(clip, films, moved[clip.name], method, settings) for clip, method, settings in asked]
    pd.concat(tables).round(4).to_csv(ROOT / "data" / "expected" / "word_audit.csv", index=False)
