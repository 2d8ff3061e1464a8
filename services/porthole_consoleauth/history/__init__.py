# SPDX-License-Identifier: Apache-2.0
"""The history of consoles, in SQL. Only this package imports SQLAlchemy, oslo.db and alembic.

The path of an event: :mod:`endpoint` takes it over RPC (consoleauth's own come from its reporter), :mod:`store` has it
written within a deadline, and :mod:`writing` puts it into the :mod:`tables`, once. :mod:`reading` answers who was
there. :mod:`porthole_common.audit` tells other systems.

* :mod:`database` is the connection, and :mod:`schema` its migrations, which are in ``migrations``.
* :mod:`presence` closes the sessions of proxies that died.
* :mod:`service` joins these parts inside consoleauth, and :mod:`switched_off` stands there where no history is kept;
  :mod:`command` is ``porthole-manage``.
"""
