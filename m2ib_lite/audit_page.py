"""An audit as a page that an auditor reads: each suspect with the crops in which it lies, in one HTML file."""

import re
from base64 import b64encode
from html import escape
from pathlib import Path

from .data import png
from .evaluate.suspects import FEWEST, audit, take_out
from .files import written_whole

CROPS, SIDE = 8, 96  # for each suspect; pixels
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Audit of {model}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }}
section {{ border-top: 1px solid #ccc; padding: 0.6em 0; }}
h2 {{ margin-top: 2em; }} h3 {{ margin: 0.2em 0; font-size: 1.05em; }}
img {{ margin: 2px; image-rendering: pixelated; }} mark {{ background: #fdb863; }} .weak {{ color: #777; }}
</style>
<h1>Audit of {model}</h1>
<p>{pairs} pairs of {data}, {words} words that {fewest} captions or more say and as many leave out. No labels were read.</p>
<p><b>What this page can say.</b> For each word, which places, looks or other words carry its information in the maps of {method}
more than chance does, and how far the model's cosine falls without them. A suspect is no fault: that the apex of a lung carries
"pneumothorax" is right, that a letter in the corner does is not, and only a reader can tell. About one word in twenty has a suspect
by chance. Other words that carry much do so beside whatever word. Grey: it is not certain that the cosine falls further without the
suspect than without an equal region elsewhere.</p>
<p><b>What it cannot say.</b> A shortcut that covers the whole picture, such as its ground or its exposure, has no place of its own
and can be missed; so can one that few of these pairs show. A page without suspects is no proof of a sound model, and nothing
clinical follows from it.</p>
{parts}
</html>
"""


def embed(image):
    """A picture inside a page.  -> an <img> of SIDE pixels"""
    bits = b64encode(png(image.resize((SIDE, SIDE)))).decode()
    return f'<img width="{SIDE}" height="{SIDE}" alt="" src="data:image/png;base64,{bits}">'


def exhibit(found, word, carrier):
    """The crops or captions in which a carrier holds most of a word's information.  -> HTML"""
    places = found.evidence(word, carrier, CROPS)
    if found.modality == "image":
        return "".join(embed(found.crop(i, position)) for i, position in places)
    return "<br>".join(marked(found.maps.captions[i], carrier) for i, _ in places[: CROPS // 2])


def marked(caption, word):
    """A caption with a word of it marked.  -> HTML"""
    pieces = re.split(rf"(?<!\w)({re.escape(word)})(?!\w)", caption, flags=re.IGNORECASE)
    return "".join(f"<mark>{escape(piece)}</mark>" if n % 2 else escape(piece) for n, piece in enumerate(pieces))


def section(found, row):
    """One suspect.  row: of take_out.  -> HTML"""
    title = f"&ldquo;{escape(row['word'])}&rdquo; is carried by {escape(row['carrier'])}"
    whole = "area" if found.modality == "image" else "tokens"
    share = f"{row['share']:.0%} of its information on {row['area']:.0%} of the {whole}, in {row['pairs']} pairs"
    needed = f"blanked, the cosine falls by {row['falls']:.3f}; an equal region elsewhere, by {row['falls elsewhere']:.3f}"
    sure = "" if row["low"] > 0 else " class='weak'"
    text = f"<p{sure}>{share}; score {row['score']:.1f}; {needed} (difference {row['low']:.3f} to {row['high']:.3f}).</p>"
    return f"<section><h3>{title}</h3>{text}{exhibit(found, row['word'], row['carrier'])}</section>"


def write_audit(clip, pairs, maps, out, data, first=20, seed=0):
    """Audit the modalities of `maps` and write out/index.html, with its pictures inside, and the tables beside it.  -> [Audit]

    maps: an Attribution of the pairs.  data: what the page calls them.  first: so many suspects of each modality.
    """
    out, parts, found = Path(out), [], []
    out.mkdir(parents=True, exist_ok=True)
    for modality, head in (("image", "Places and looks in the pictures"), ("text", "Other words of the captions")):
        if getattr(maps, f"{modality}_maps") is None:
            continue
        found.append(audit(clip, pairs, maps, modality, seed))
        rows = take_out(clip, found[-1], first, seed)
        with written_whole(out / f"suspects_{modality}.csv") as part:
            rows.to_csv(part, index=False)
        sections = [section(found[-1], row) for row in rows.to_dict("records")]
        parts += [f"<h2>{head}</h2>", *(sections or ["<p>No suspects.</p>"])]
    named = dict(model=escape(clip.name), data=escape(data), words=len(found[0].words), method=escape(maps.method))
    with written_whole(out / "index.html") as part:
        part.write_text(PAGE.format(**named, pairs=len(pairs), fewest=FEWEST, parts="\n".join(parts)), encoding="utf-8")
    return found
