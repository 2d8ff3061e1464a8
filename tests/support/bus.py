# SPDX-License-Identifier: Apache-2.0
"""A bus in this process's memory for unit tests: oslo.messaging's ``fake://``, through Porthole's own port.

``fake://`` hands errors over as they are; :func:`across_the_wire` is what RabbitMQ's driver does to them.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.rpc import Rpc


def parse_global_conf(*argv: str) -> None:
    """Parse Porthole's options into the global CONF, from ``argv`` alone."""
    cfg.CONF.reset()
    porthole_conf.parse(cfg.CONF, "porthole-test", list(argv), default_config_files=[], default_config_dirs=[])


@contextmanager
def fake_bus(timeout_s: float = 10) -> Iterator[Rpc]:
    """Yield an :class:`Rpc` on ``fake://``; all of them in one process share their topics, until one is closed.

    On the global CONF, with Porthole's options at their defaults: oslo.messaging registers its tracing options on no
    other.
    """
    parse_global_conf()
    rpc = Rpc(cfg.CONF, timeout_s, transport_url="fake://")
    try:
        yield rpc
    finally:
        rpc.close()
        cfg.CONF.reset()


def across_the_wire(error: Exception) -> Any:
    """Return the exception that the far side builds of ``error`` after it was raised here."""
    # Not at the top: porthole_common.messaging must have chosen the threading backend before oslo.messaging comes in.
    from oslo_messaging._drivers.common import deserialize_remote_exception, serialize_remote_exception

    try:
        raise error
    except type(error):
        data = serialize_remote_exception(sys.exc_info())
    return deserialize_remote_exception(data, [errors.__name__])


def expected_error(call: Callable[[], object]) -> Exception:
    """Return what an endpoint's method raised, as oslo.messaging's dispatcher takes it.

    :raises AssertionError: when it raised nothing that its ``expected_exceptions`` names.
    """
    from oslo_messaging.rpc.dispatcher import ExpectedException

    try:
        call()
    except ExpectedException as exc:
        error = exc.exc_info[1]
        assert isinstance(error, Exception)
        return error
    raise AssertionError("nothing was raised")
