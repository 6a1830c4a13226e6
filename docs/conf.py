"""Sphinx: `make docs`. Works offline; nothing is fetched."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import statespace

project = "statespace"
author = copyright = "the statespace developers"
version = release = statespace.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "alabaster"
html_theme_options = {"description": statespace.__doc__.splitlines()[0], "page_width": "1100px"}
html_show_sourcelink = False

autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False  # a package shows the names in its __all__
autodoc_typehints = "none"
numpydoc_show_class_members = False
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"(__init__|demo)\.py",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
}
suppress_warnings = ["config.cache"]  # sphinx-gallery's configuration holds objects that Sphinx does not pickle
