"""Every finding that README states has recorded verdicts behind it."""

from itertools import product
from pathlib import Path

import pytest
from results import full_scale

from m2ib_lite.repro import claims

ROOT = Path(__file__).parents[1]
PLACE, WORDS, ENERGY, AT_POWER = (
    f"higher {score} than the rivals" for score in ("IoU at best", "word precision", "energy inside", "energy inside at power")
)
DELETION, ROAR = "finds first what the cosine cannot lose", "takes away more of what training needs than the rivals"
OWN, ORDER = "own object: M2IB finds it more often than the rivals", "words that name objects rank above a random order"
SANE, SCALE = "with random weights the {} map's Spearman is below 0.5", "similar scale at the start, {} is better"
NONSENSE = "the map of a nonsense caption is mostly weaker than the true one's"
CLEAN, LEARNED = "at most one clean word in twenty is accused", "the marker raises its finding's cosine by more than .02"
PASSES, FOUR = "each tower takes at most 100 forward passes, published settings", "Grad-CAM, RISE, Chefer et al., Grad-ECLIP"
FINDINGS = [  # what README says, the notebook, its claim, the column of its table, what is recorded there
    ("LeGrad finds named objects more precisely on both testbeds", "06", f"{PLACE} (scenes, published)", "loses to", "LeGrad"),
    ("on radiographs four more methods do", "06", f"{PLACE} (radiographs, published)", "loses to", f"{FOUR}, LeGrad"),
    ("LeGrad and Chefer et al. are better on scenes", "06", f"{PLACE} (scenes, best)", "loses to", "Chefer et al., LeGrad"),
    ("LeGrad and NIB on radiographs", "06", f"{PLACE} (radiographs, best)", "loses to", "NIB, LeGrad"),
    ("More of its map lies inside the true boxes", "06", f"{ENERGY} (scenes, best)", "result", "held against 9 of 9"),
    ("More of its map lies inside the true boxes", "06", f"{ENERGY} (radiographs, best)", "result", "held against 9 of 9"),
    ("catch up or pass it", "06", f"{AT_POWER} (radiographs, best)", "loses to", "NIB, LeGrad"),
    ("as precise as those of the best methods on scenes", "06", f"{WORDS} (scenes, best)", "loses to", ""),
    ("which 40 pairs do not settle", "06", f"{WORDS} (radiographs, best)", "loses to", ""),
    ("worse than a random order on radiographs", "01", f"{ORDER} (radiographs, published)", "result", "lost"),
    ("Chefer et al. alone is settled to be better", "08", f"{OWN} (best)", "loses to", "Chefer et al."),
    ("is worse than LeGrad on scenes", "03", f"{DELETION} (image, scenes, best)", "loses to", "LeGrad"),
    ("than KernelSHAP and RISE on radiographs", "03", f"{DELETION} (image, radiographs, best)", "loses to", "KernelSHAP, RISE"),
    ("It passes the sanity checks", "04", SANE.format("image"), "result", "held"),
    ("It passes the sanity checks", "04", SANE.format("text"), "result", "held"),
    ("Nonsense gets a weaker map", "04", NONSENSE, "result", "held"),
    ("terms of similar scale at the start for words", "05", SCALE.format("text, scenes"), "result", "held"),
    ("terms of similar scale at the start for words", "05", SCALE.format("text, radiographs"), "result", "held"),
    ("the images of scenes", "05", SCALE.format("image, scenes"), "result", "held"),
    ("depth for the images of scenes alone", "05", "deeper is better, image, scenes, published", "result", "held"),
    ("depth for the images of scenes alone", "05", "deeper is better, image, radiographs, published", "result", "lost"),
    ("26 forward passes", "07", PASSES, "interval", "26.000 (26.000 to 26.000)"),
    ("a letter and a tube that the model truly uses", "09", f"{LEARNED} (letter, biased)", "result", "held"),
    ("a letter and a tube that the model truly uses", "09", f"{LEARNED} (tube, biased)", "result", "held"),
    ("0 of 35, which leaves", "09", f"{CLEAN} (image, published)", "interval", "0.000 (0.000 to 0.100)"),
    ("0 of 35, which leaves", "09", f"{CLEAN} (image, published)", "result", "open"),
    ("published settings accuse nearly every clean word", "09", f"{CLEAN} (text, published)", "result", "lost"),
    ("before the first block it accuses none", "09", f"{CLEAN} (text, best)", "interval", "0.000 (0.000 to 0.161)"),
]
for (modality, rivals), *place in product((("image", 9), ("text", 8)), ("scenes", "radiographs"), ("published", "best")):
    claim = f"{ROAR} ({', '.join([modality, *place])})"
    FINDINGS.append(("ROAR+ over ten seeds settles nothing", "03", claim, "result", f"held against 0 of {rivals}"))
    FINDINGS.append(("ROAR+ over ten seeds settles nothing", "03", claim, "loses to", ""))


@pytest.mark.parametrize(("sentence", "notebook", "claim", "column", "recorded"), FINDINGS)
def test_a_finding_of_readme_is_what_the_record_says(sentence, notebook, claim, column, recorded):
    assert sentence in " ".join((ROOT / "README.md").read_text().split())
    (rows,) = (rows for name, rows in full_scale(ROOT / "data" / "expected").items() if name.startswith(notebook))
    table = claims(rows)
    assert table.loc[table["claim"] == claim, column].tolist() == [recorded]
