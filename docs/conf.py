"""How Sphinx sets the book that `make book` binds, of README, these pages and the executed notebooks, without any network."""

import os

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import m2ib_lite

project, author, release = "m2ib_lite", "the authors of m2ib_lite", m2ib_lite.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["docs/conf.py"]

nb_execution_mode = "off"  # `make figures` has run them
nb_ipywidgets_js = {}  # progress bars are shown as their last line of text
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
pygments_style = "friendly"

html_theme = "sphinx_book_theme"
html_title = "m2ib_lite"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_math_renderer = "mathml"
html_show_copyright = html_show_sourcelink = False
html_theme_options = {"use_download_button": True, "use_fullscreen_button": False, "show_toc_level": 2}

FILLED = 100  # characters
REPOSITORY = os.environ.get("GITHUB_REPOSITORY")  # owner/name, which GitHub's runners set
if REPOSITORY:
    html_theme_options |= {"repository_url": f"https://github.com/{REPOSITORY}", "use_repository_button": True}


def show_math(inside, node):
    """A formula as MathML, which browsers draw by themselves."""
    inside.body.append(tex2mathml(node.astext().strip(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def keep_as_text(app, what, name, thing, options, lines):
    """Docstrings are plain text: show them as such, a line that fills the source's width joined with the next."""
    text, filled = [], False
    for line in lines:
        if filled and line.strip():
            text[-1] += " " + line.strip()
        else:
            text.append(line)
        filled = len(line) > FILLED and line[-1] not in ".:"
    lines[:] = [".. code-block:: text", "   :class: docstring", "", *(f"   {line}" for line in text), ""]


def setup(app):
    """Tell Sphinx of both."""
    app.add_html_math_renderer("mathml", (show_math, None), (show_math, None))
    app.connect("autodoc-process-docstring", keep_as_text)
