# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings. Nothing here needs the network, or Porthole itself."""

project = "Porthole"
author = "The Porthole developers"
project_copyright = "The Porthole developers"
extensions: list[str] = []
exclude_patterns: list[str] = []
html_theme = "alabaster"
nitpicky = True
