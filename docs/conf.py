# SPDX-License-Identifier: ZPL-2.1
"""How Sphinx builds the documentation."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # for house.py

project = "lovely.remotetask"
author = "The lovely.remotetask contributors"
copyright = author

release = installed_version("lovely.remotetask")
version = release

extensions = ["sphinx.ext.autodoc", "sphinx_copybutton", "house"]
exclude_patterns = ["_build", "examples"]

html_theme = "furo"
html_title = f"{project} {release}"

# What is copied from a block with prompts is what one types.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
