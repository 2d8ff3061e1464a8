# SPDX-License-Identifier: Apache-2.0
"""A bus in this process's memory for unit tests: oslo.messaging's ``fake://``, through Porthole's own port.

``fake://`` hands errors over as they are; :func:`across_the_wire` is what RabbitMQ's driver does to them.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oslo_config import cfg

from porthole_common import errors
from porthole_common.rpc import Rpc


@contextmanager
def fake_bus(timeout_s: float = 10) -> Iterator[Rpc]:
    """Yield an :class:`Rpc` on ``fake://``; all of them in one process share their topics, until one is closed.

    On the global CONF, since oslo.messaging registers its tracing options on no other.
    """
    cfg.CONF([], project="porthole", default_config_files=[], default_config_dirs=[])
    rpc = Rpc(cfg.CONF, timeout_s, transport_url="fake://")
    try:
        yield rpc
    finally:
        rpc.close()
        cfg.CONF.reset()


def across_the_wire(error: Exception) -> Any:
    """Return the exception that the far side builds of ``error`` after it was raised here."""
    # Not at the top: porthole_common.rpc must have chosen the threading backend before oslo.messaging comes in.
    from oslo_messaging._drivers.common import deserialize_remote_exception, serialize_remote_exception

    try:
        raise error
    except type(error):
        data = serialize_remote_exception(sys.exc_info())
    return deserialize_remote_exception(data, [errors.__name__])
