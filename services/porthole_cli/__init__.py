# SPDX-License-Identifier: Apache-2.0
"""The ``porthole`` command."""
