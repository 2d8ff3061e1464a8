# SPDX-License-Identifier: Apache-2.0
"""alembic's migrations of the history: :mod:`env` is what alembic runs, ``versions`` has the steps."""
