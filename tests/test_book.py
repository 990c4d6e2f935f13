"""The book is bound without a warning, and every link in it leads somewhere; the pages' snippets run."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pytest
from book import PAGES, RUN_PAGE, bind
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from m2ib_lite.data import load_pairs

ROOT = Path(__file__).parents[1]


class Links(HTMLParser):
    """The names and the addresses of a page."""

    def __init__(self, page):
        super().__init__()
        self.names, self.addresses = {""}, []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.names |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        self.addresses += [attributes[key] for key in ("href", "src") if attributes.get(key)]


def broken_links(book):
    """What pages of the book point to that is not there, and what they would load from elsewhere.  -> ["page: address"]"""
    pages = {page: Links(page) for page in book.rglob("*.html") if "_static" not in page.parts}
    for page, links in pages.items():
        for address in links.addresses:
            url = urlsplit(address)
            if url.scheme:
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            known = pages[target].names if target in pages else {"", url.fragment}
            if not target.exists() or unquote(url.fragment) not in known:
                yield f"{page.relative_to(book)}: {address}"


def write_run(executed):
    """A run of notebooks as README links to them, each of one formula, one cell and one table."""
    (executed / "notebooks").mkdir(parents=True)
    for path in ROOT.glob("notebooks/*.ipynb"):
        title = re.search(r"# (.*)", nbformat.read(path, as_version=4).cells[0].source)[0]
        table = new_output("execute_result", data={"text/html": "<table><tr><td>1</td></tr></table>", "text/plain": "1"})
        bar = new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/plain": "100%"})
        cells = [new_markdown_cell(f"{title}\n\n## Question\n\n$\\sigma^2$"), new_code_cell("1", outputs=[table, bar])]
        notebook = new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
        nbformat.write(notebook, executed / "notebooks" / path.name)
    (executed / RUN_PAGE).write_text("# The last run\n\n[the testbed](../notebooks/00_testbed.ipynb)\n")


def test_the_book_is_bound_its_links_lead_somewhere_and_it_asks_nothing_of_another_machine(tmp_path):
    write_run(tmp_path / "figures")
    book = tmp_path / "book"
    bind(tmp_path / "figures", book)
    assert list(broken_links(book)) == []
    assert {"docs/api.html", "docs/run.html", "notebooks/09_audit.html", "search.html"} <= set(Links(book / "index.html").addresses)
    assert "<math" in (book / "notebooks" / "00_testbed.html").read_text()
    assert "(B, gh, gw)" in (book / "docs" / "api.html").read_text()
    loaded = r"<(?:script|img|iframe)[^>]* src=\"(\w+:)?//|<link(?![^>]*canonical)[^>]* href=\"(\w+:)?//"
    assert [page for page in book.rglob("*.html") if re.search(loaded, page.read_text())] == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "index.html").write_text('<p id="here">')
    links = (
        '<a href="index.html#here">0</a><a href="index.html#nowhere">1</a><a href="missing.html">2</a><a href="index.html">3</a>'
    )
    (tmp_path / "broken.html").write_text(links)
    assert list(broken_links(tmp_path)) == ["broken.html: index.html#nowhere", "broken.html: missing.html"]


def test_the_book_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"no finished run in .*: `make figures` first"):
        bind(tmp_path, tmp_path / "book")
    assert all((ROOT / page).exists() for page in PAGES)


def snippet(page):
    return re.search(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)[1]


def test_readmes_eight_lines_draw_the_picture_below_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(snippet("README.md").splitlines()) == 8
    exec(snippet("README.md").replace('"testbed"', '"testbed", device="cpu"'), {})
    drawn, shown = (np.asarray(Image.open(path).convert("L"), int) for path in ("match.png", ROOT / "docs/_static/match.png"))
    assert drawn.shape == shown.shape
    assert abs(drawn - shown).mean() < 2


def test_the_rival_of_contributing_works(clip, monkeypatch):
    names = {}
    exec(snippet("CONTRIBUTING.md"), names)
    found = names["gradientxstate"](clip, load_pairs("scenes", 2), layer=(1, 0))
    assert found.image_maps.shape == (2, *clip.grid)
    assert all(row.abs().sum() > 0 for row in [*found.image_maps, *found.text_maps])
