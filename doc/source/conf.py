# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings. Nothing here needs the network, or Porthole itself."""

project = "Porthole"
author = "The Porthole developers"
project_copyright = "The Porthole developers"
extensions: list[str] = []
exclude_patterns: list[str] = []
html_theme = "alabaster"
# As wide as the window: tables of four columns and commands of a whole line.
html_theme_options = {"page_width": "auto", "body_max_width": "auto"}
# What stands in a literal block is mostly a command, whose "#" is the prompt and no comment.
highlight_language = "text"
nitpicky = True
