"""Choose a testbed model's settings of every method by one rule, on the pictures of one seed; the notebooks report on another's.

python data/testbed/tune.py               # writes settings.json, tuning.csv and others.txt into data/models/scenes
python data/testbed/tune.py radiographs   # and into data/models/radiographs

For each method and tower the published setting and others drawn from its grid, TRIES in all, or the whole grid where it has no
more.  Chosen by scores that look at a map's order alone: the image's by the mean of pointing game, best IoU and instances hit, the
text's by the precision of the words that are in the picture, the word maps' by how often a word's own object is preferred, then by
the pointing game.  M2IB's maps must reach the nat that `plot` draws at full brightness in half of the pictures: order alone would
as soon have a map that is squeezed to nothing.  Then the power that makes most of each method's energy inside and keeps the order.
others.txt: captions of other pictures, and some that say nothing.
"""

import argparse
import json
import random
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from radiographs import radiographs
from scenes import scenes
from tqdm import tqdm

from m2ib_lite import load_model, models
from m2ib_lite.evaluate import METHODS, SETTINGS, localisation, method_options, occurrences, word_game, word_heats
from m2ib_lite.models import BUILT_IN
from m2ib_lite.plots import FULL
from m2ib_lite.repro import TUNING_SEED
from m2ib_lite.rivals import RIVALS
from m2ib_lite.side import MODALITIES

N_PAIRS, N_OTHERS, N_EMPTY, TRIES = 40, 24, 8, 12
DRAWN, EACH = 220, 8  # scenes for the word maps, and how many of them with two, three and four kinds of object
DOMAINS = {"scenes": ("testbed", scenes), "radiographs": ("radiographs", radiographs)}  # the model's name, its pictures
CHOSEN_BY = {"image": ["pointing game", "IoU at best", "instances hit"], "text": ["word precision"]}
POWERS = (0.5, 1, 2, 4, 8, 16)
NAMES = {"M2IB": "M2IB"} | {name: method.title for name, method in RIVALS.items()}  # as settings.json has them, as METHODS has
QUICK = {"M2IB": dict(quality="fast"), "RISE": dict(image_masks=300)}  # here alone, while settings are compared
QUICKER = QUICK | {"RISE": dict(image_masks=100)}  # for the many maps of words


def grid(name, blocks):
    """Every setting of a method in a tower of so many blocks."""
    options = {
        "M2IB": dict(layer=range(-1, blocks - 1), beta=(0.1, 1.0, 10.0), sigma2=(1.0,), standardise=(False, True)),
        "gradcam": dict(block=range(-1, -blocks - 1, -1)),
        "gradeclip": dict(block=range(-1, -blocks - 1, -1)),
        "kernelshap": dict(samples=(2, 5, 10, 20)),
        "rise": dict(cells=(4, 7, 8, 14), p=(0.1, 0.3, 0.5, 0.7)),
        "chefer": dict(blocks=range(1, blocks + 1)),
        "legrad": dict(blocks=range(1, blocks + 1)),
        "nib": dict(layer=range(blocks - 1), steps=(5, 10, 20, 50)),
    }.get(name, {})
    return [dict(zip(options, values)) for values in product(*options.values())]


def tried(name, clip, modality, published):
    """The settings of one method that are tried in one tower, the published one first."""
    k = MODALITIES.index(modality)
    whole = grid(name, len(clip.towers[k].blocks))
    first = {key: published[key][k] if isinstance(published[key], tuple) else published[key] for key in whole[0]}
    if name == "nib":
        first["layer"] = clip.published["layer"][k]
    rest = [setting for setting in whole if setting != first]
    return [first, *random.Random(TUNING_SEED).sample(rest, min(len(rest), TRIES - 1))]


def of_captions(clip, pairs, name, modality, setting):
    """The means of one setting's scores, their mean, and the median of its maps' maxima."""
    options = dict(modality=modality, batch_size=20, progress=False) | setting | QUICK.get(NAMES[name], {})
    found = METHODS[NAMES[name]](clip, pairs, **options)
    table = pd.concat([localisation(found, pairs), occurrences(found, pairs)])
    means = table.groupby("metric")["value"].mean()[CHOSEN_BY[modality]]
    maxima = [scores.max().item() for scores in (found.text_maps if modality == "text" else found.image_maps)]
    return dict(score=means.mean(), maximum=np.median(maxima), **means)


def of_words(clip, pairs, name, setting):
    """The same for the maps of words."""
    heats = [word_heats(clip, pair, name, **setting | QUICKER.get(NAMES[name], {})) for pair in pairs]
    played = [word_game(of_pair, pair, name, clip.view(pair.image.size)) for of_pair, pair in zip(heats, pairs, strict=True)]
    means = pd.concat(played).groupby("metric")["value"].mean()
    maxima = [heat.max() for of_pair in heats for heat in of_pair.values()]
    return dict(score=means["own object"] + 1e-3 * means["pointing game"], maximum=np.median(maxima), **means)


def compare(clip, pairs, scenes_of_kinds, published):
    """One row for each setting of each method in each tower, and for the maps of words."""
    for name, section in product(NAMES, ("image", "text", "words")):
        modality = "text" if section == "text" else "image"
        if name in ("saliency", "random") or (name, section) == ("legrad", "text") or (section == "words" and not scenes_of_kinds):
            continue
        for setting in tqdm(tried(name, clip, modality, published[NAMES[name]]), desc=f"{name}, {section}"):
            about = dict(method=name, section=section)
            if section == "words":
                yield about | setting | of_words(clip, scenes_of_kinds, name, setting)
            else:
                yield about | setting | of_captions(clip, pairs, name, modality, setting)


def best(rows, name, section, options):
    """The best setting of a method, the first tried where several are; M2IB's only among those that are bright enough."""
    rows = [row for row in rows if (row["method"], row["section"]) == (name, section)]
    rows = [row for row in rows if name != "M2IB" or row["maximum"] >= FULL["nats"]]
    return {key: max(rows, key=lambda row: row["score"])[key] for key in options} if rows else {}


def choose(rows):
    """-> the sections "best" and "best for words" of settings.json"""
    chosen = {"best": {}, "best for words": {}}
    for name in NAMES:
        options = list(grid(name, 2)[0])
        image, text, words = (best(rows, name, section, options) for section in ("image", "text", "words"))
        chosen["best"][name] = {key: [image[key], text.get(key, image[key])] for key in image}
        chosen["best for words"][name] = {key: [words[key]] * 2 for key in words}
    return {section: of for section, of in chosen.items() if any(of.values())}


def powers(clip, pairs, options):
    """The power of each method's image maps that puts most of their energy inside the boxes."""
    found = {}
    for name, own in options.items():
        maps = METHODS[name](clip, pairs, modality="image", batch_size=20, progress=False, **own | QUICK.get(name, {}))
        tables = {power: localisation(maps, pairs, power=power) for power in POWERS}
        energy = {power: table.groupby("metric")["value"].mean()["energy inside at power"] for power, table in tables.items()}
        found[name] = max(energy, key=energy.get)
    return found


def write_others(folder, captions):
    """The first different captions, and the end of the list for all models, whose captions say nothing."""
    empty = Path(models.__file__).with_name("others.txt").read_text().splitlines()[-N_EMPTY:]
    lines = [*list(dict.fromkeys(captions))[:N_OTHERS], *empty]
    (folder / "others.txt").write_text("".join(f"{line}\n" for line in lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("domain", nargs="?", choices=list(DOMAINS), default="scenes")
    domain = parser.parse_args().domain
    name, draw = DOMAINS[domain]
    clip, pairs, folder = load_model(name), draw(N_PAIRS, seed=TUNING_SEED), BUILT_IN[name]
    write_others(folder, [pair.caption for pair in pairs])
    many = draw(DRAWN, seed=TUNING_SEED) if domain == "scenes" else []
    of_kinds = [pair for k in (2, 3, 4) for pair in [pair for pair in many if len(pair.words()) == k][:EACH]]
    published = method_options(clip, "published", TUNING_SEED, medical=domain == "radiographs")
    clip.settings = {}  # what an earlier run chose must not fill in what this one does not set
    rows = list(compare(clip, pairs, of_kinds, published))
    pd.DataFrame(rows).round(4).to_csv(folder / "tuning.csv", index=False)
    settings = choose(rows)
    (folder / "settings.json").write_text(json.dumps(settings) + "\n")
    clip = load_model(name)  # with these
    asked = {kind: method_options(clip, kind, TUNING_SEED, medical=domain == "radiographs") for kind in SETTINGS}
    settings["power"] = {kind: powers(clip, pairs, options) for kind, options in asked.items()}
    (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    print(json.dumps(settings, indent=1))


if __name__ == "__main__":
    main()
