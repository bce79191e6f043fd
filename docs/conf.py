# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual: ``make docs`` builds pages in build/docs, and build/man/kmemdump*.1."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from kmemdump_docs import write_man_sources

project = "kmemdump"
author = "the kmemdump developers"
copyright = "the kmemdump developers"
version = release = version_of("kmemdump")

extensions = ["sphinx.ext.autodoc", "kmemdump_docs"]
exclude_patterns = ["_ext", "examples"]
highlight_language = "none"
smartquotes_action = "qe"  # Dashes begin options.

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "kmemdump"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {"top_of_page_buttons": []}
html_show_copyright = False
html_copy_source = False

_VERBS = write_man_sources(Path(__file__).parent / "man")
if not tags.has("man"):  # noqa: F821 - given by Sphinx
    exclude_patterns.append("man")  # In the manual, they are on one page.

man_pages = [
    *(
        (f"man/kmemdump-{verb}", f"kmemdump-{verb}", summary, [], 1)
        for verb, summary in _VERBS.items()
    ),
    (
        "reference/kmemdump",
        "kmemdump",
        "mark memory of a running Linux kernel, so that a dead machine still answers",
        [],
        1,
    ),
]
