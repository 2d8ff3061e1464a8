# SPDX-License-Identifier: Apache-2.0
"""What alembic runs for each command: the migrations, over the connection that the caller made.

Called by alembic, for :mod:`porthole_consoleauth.history.schema`.
"""

from alembic import context

from porthole_consoleauth.history.schema import CONNECTION
from porthole_consoleauth.history.tables import METADATA

context.configure(connection=context.config.attributes[CONNECTION], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
