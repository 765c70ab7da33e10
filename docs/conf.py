# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How ./dev docs makes HTML of the guides beside this file and of what the plugins document."""

from __future__ import annotations

project = "diskwright.proxmox"
copyright = "The diskwright.proxmox authors"  # noqa: A001  # Sphinx wants this name
title = "diskwright.proxmox"
html_short_title = title

extensions = ["myst_parser", "sphinx_antsibull_ext"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["collections/environment_variables.rst"]  # refers to pages of docs.ansible.com
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "sphinx_ansible_theme"
html_show_sphinx = False
html_theme_options = {"vcs_pageview_mode": "", "documentation_home_url": "index.html", "topbar_links": {}}
