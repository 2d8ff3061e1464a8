# SPDX-License-Identifier: Apache-2.0
"""The open consoles of one process: which there are, and what ends them from outside."""
