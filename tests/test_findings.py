"""Every finding that README and docs/results.md state has recorded verdicts behind it, and every number of README's table."""

import re
from itertools import product
from pathlib import Path

import pytest
from results import full_scale, side_by_side

from m2ib_lite.repro import claims

ROOT = Path(__file__).parents[1]
RECORDED = full_scale(ROOT / "data" / "expected")
README, PAGE = (" ".join((ROOT / name).read_text().split()) for name in ("README.md", "docs/results.md"))
PLACE, WORDS, ENERGY, AT_POWER = (
    f"higher {score} than the rivals" for score in ("IoU at best", "word precision", "energy inside", "energy inside at power")
)
DELETION, ROAR = "finds first what the cosine cannot lose", "takes away more of what training needs than the rivals"
DROP = "drops less confidence than the rivals"
OWN, ORDER = "own object: M2IB finds it more often than the rivals", "words that name objects rank above a random order"
SANE, SCALE = "with random weights the {} map's Spearman is below 0.5", "similar scale at the start, {} is better"
NONSENSE = "the map of a nonsense caption is mostly weaker than the true one's"
CLEAN, LEARNED = "at most one clean word in twenty is accused", "the marker raises its finding's cosine by more than .02"
PASSES, FOUR = "each tower takes at most 100 forward passes, published settings", "Grad-CAM, RISE, Chefer et al., Grad-ECLIP"
FINDINGS = [  # what docs/results.md says, the notebook, its claim, the column of its table, what is recorded there
    ("LeGrad finds named objects more precisely on both testbeds", "06", f"{PLACE} (scenes, published)", "loses to", "LeGrad"),
    ("on radiographs four more methods do", "06", f"{PLACE} (radiographs, published)", "loses to", f"{FOUR}, LeGrad"),
    ("LeGrad and Chefer et al. are better on scenes", "06", f"{PLACE} (scenes, best)", "loses to", "Chefer et al., LeGrad"),
    ("NIB and LeGrad on radiographs", "06", f"{PLACE} (radiographs, best)", "loses to", "NIB, LeGrad"),
    ("More of its map lies inside the true boxes", "06", f"{ENERGY} (scenes, best)", "result", "held against 9 of 9"),
    ("More of its map lies inside the true boxes", "06", f"{ENERGY} (radiographs, best)", "result", "held against 9 of 9"),
    ("catch up with M2IB or pass it", "06", f"{AT_POWER} (radiographs, best)", "loses to", "NIB, LeGrad"),
    ("as precise as those of the best methods on scenes", "06", f"{WORDS} (scenes, best)", "loses to", ""),
    ("but 40 pairs do not settle it", "06", f"{WORDS} (radiographs, best)", "loses to", ""),
    ("worse than a random order on radiographs", "01", f"{ORDER} (radiographs, published)", "result", "lost"),
    ("only Chefer et al. are settled to be better", "08", f"{OWN} (best)", "loses to", "Chefer et al."),
    ("is worse than LeGrad on scenes", "03", f"{DELETION} (image, scenes, best)", "loses to", "LeGrad"),
    ("than KernelSHAP and RISE on radiographs", "03", f"{DELETION} (image, radiographs, best)", "loses to", "KernelSHAP, RISE"),
    ("It passes the sanity checks", "04", SANE.format("image"), "result", "held"),
    ("It passes the sanity checks", "04", SANE.format("text"), "result", "held"),
    ("A nonsense caption gets a weaker map", "04", NONSENSE, "result", "held"),
    ("Terms of similar scale at the start are better for words", "05", SCALE.format("text, scenes"), "result", "held"),
    ("Terms of similar scale at the start are better for words", "05", SCALE.format("text, radiographs"), "result", "held"),
    ("and for the images of scenes", "05", SCALE.format("image, scenes"), "result", "held"),
    ("Depth is better for the images of scenes alone", "05", "deeper is better, image, scenes, published", "result", "held"),
    ("Depth is better for the images of scenes alone", "05", "deeper is better, image, radiographs, published", "result", "lost"),
    ("26 forward passes", "07", PASSES, "interval", "26.000 (26.000 to 26.000)"),
    ("letter and a tube that the model truly uses", "09", f"{LEARNED} (letter, biased)", "result", "held"),
    ("letter and a tube that the model truly uses", "09", f"{LEARNED} (tube, biased)", "result", "held"),
    ("0 of 35, which leaves", "09", f"{CLEAN} (image, published)", "interval", "0.000 (0.000 to 0.100)"),
    ("0 of 35, which leaves", "09", f"{CLEAN} (image, published)", "result", "open"),
    ("published settings accuse nearly every clean word", "09", f"{CLEAN} (text, published)", "result", "lost"),
    ("before the first block it accuses none", "09", f"{CLEAN} (text, best)", "interval", "0.000 (0.000 to 0.161)"),
]
for (modality, rivals), *place in product((("image", 9), ("text", 8)), ("scenes", "radiographs"), ("published", "best")):
    claim = f"{ROAR} ({', '.join([modality, *place])})"
    FINDINGS.append(("ROAR+ over ten seeds settles nothing", "03", claim, "result", f"held against 0 of {rivals}"))
    FINDINGS.append(("ROAR+ over ten seeds settles nothing", "03", claim, "loses to", ""))


INSIDE, USED = "more of its map lies inside the true boxes", "letter and tube that a model had learned to use"
ONE_IN_TWENTY = "That is too few to rule out a rate of one in twenty, so this claim is open"
README_SAYS = [
    ("M2IB is not the most precise method", "06", f"{PLACE} (scenes, best)", "loses to", "Chefer et al., LeGrad"),
    (INSIDE, "06", f"{ENERGY} (scenes, best)", "result", "held against 9 of 9"),
    (INSIDE, "06", f"{ENERGY} (radiographs, best)", "result", "held against 9 of 9"),
    (USED, "09", f"{LEARNED} (letter, biased)", "result", "held"),
    (USED, "09", f"{LEARNED} (tube, biased)", "result", "held"),
    (ONE_IN_TWENTY, "09", f"{CLEAN} (image, published)", "interval", "0.000 (0.000 to 0.100)"),
    (ONE_IN_TWENTY, "09", f"{CLEAN} (image, published)", "result", "open"),
    ("Its maps change when the weights do", "04", SANE.format("image"), "result", "held"),
    ("Its maps change when the weights do", "04", SANE.format("text"), "result", "held"),
]
TABLE = [  # a row's label in README, the notebook, the column of its table, the domain, the claim
    ("where named objects are, scenes: IoU at the best threshold ↑", "06", "IoU at best, image ↑", "scenes", PLACE),
    ("the same on radiographs ↑", "06", "IoU at best, image ↑", "radiographs", PLACE),
    ("share of the map inside true boxes, scenes ↑", "06", "energy inside, image ↑", "scenes", ENERGY),
    ("words that name objects come first, scenes: average precision ↑", "06", "word precision, text ↑", "scenes", WORDS),
    ("cosine left while the map's first patches are deleted, scenes: area ↓", "03", "deletion AUC, image ↓", "scenes", DELETION),
    ("drop in confidence where only the map's part is kept, scenes ↓", "03", "drop, image ↓", "scenes", DROP),
]


def rows_of(notebook):
    (rows,) = (rows for name, rows in RECORDED.items() if name.startswith(notebook))
    return rows


def recorded_claim(notebook, claim):
    table = claims(rows_of(notebook))
    (row,) = table[table["claim"] == claim].to_dict("records")
    return row


@pytest.mark.parametrize(("says", "findings"), [(PAGE, FINDINGS), (README, README_SAYS)], ids=["results", "README"])
def test_a_finding_is_what_the_record_says(says, findings):
    for sentence, notebook, claim, column, recorded in findings:
        assert sentence in says, sentence
        assert recorded_claim(notebook, claim)[column] == recorded, sentence


def test_a_random_map_drops_less_confidence_than_m2ib():
    assert "even a random map does better" in README
    for place in product(("scenes", "radiographs"), ("published", "best")):
        assert "Random" in recorded_claim("03", f"{DROP} (image, {', '.join(place)})")["loses to"]


@pytest.mark.parametrize(("label", "notebook", "column", "domain", "claim"), TABLE)
def test_a_row_of_readme_has_the_recorded_numbers(label, notebook, column, domain, claim):
    tables = side_by_side(rows_of(notebook))
    published, best = (tables[f"{domain}, {settings}"][column].str.strip("*") for settings in ("published", "best"))
    rivals = best.drop("M2IB").replace("–", None).dropna().astype(float)
    first = rivals.idxmin() if "↓" in column else rivals.idxmax()
    modality = "image, " if notebook == "03" else ""
    found = recorded_claim(notebook, f"{claim} ({modality}{domain}, best)")
    (held, of), worse = re.findall(r"\d+", found["result"]), list(filter(None, found["loses to"].split(", ")))
    verdict = f"better than {held} of {of}, worse than {len(worse)}"
    cells = [label, published["M2IB"], best["M2IB"], f"{first.split(' (')[0]} {best[first]}", verdict]
    assert f"| {' | '.join(cells)} |" in README
