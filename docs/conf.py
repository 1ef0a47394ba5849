"""How Sphinx makes the site: ``tox -e docs``."""

import statedb

project = "statedb"
author = "the statedb developers"
version = release = statedb.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"statedb {release}"
# Links to headings, as GitHub makes them too.
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
