"""How the documentation is built: ``make docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference
from docutils import nodes
from sphinx.application import Sphinx

import balancekit

project, author, copyright = "balancekit", "The balancekit developers", "2026, the balancekit developers"
version = release = balancekit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"balancekit {version}"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_custom_sections = [("Method", "params_style")]
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 88


def caption(_app: Sphinx, page: nodes.document) -> None:
    """Let a picture's words be read below it."""
    for number, image in enumerate(list(page.findall(nodes.image))):
        if isinstance(image.parent, nodes.paragraph) and len(image.parent) == 1:
            figure = nodes.figure("", image.deepcopy(), nodes.caption("", image["alt"]), ids=[f"picture-{number}"])
            image.parent.replace_self(figure)


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", caption)
    reference.setup(app)
