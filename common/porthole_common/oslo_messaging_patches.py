# SPDX-License-Identifier: Apache-2.0
"""Every use of a private part of oslo.messaging.

Why: four things that operators need have no option and no public call. Each is done only while the private part is
there; an oslo.messaging without the part works as it does by itself, and the log says so once. Called by
:mod:`porthole_common.rpc` and :mod:`porthole_common.rpc_server`.
"""

import importlib
import threading
from typing import Any

from porthole_common.log import get_logger
from porthole_common.messaging import BROKER_ERRORS
from porthole_common.private_parts import report_missing

LOG = get_logger(__name__)
LIBRARY = "oslo.messaging"
_DRIVER = "oslo_messaging._drivers.amqpdriver"
# How long the broker may take to confirm that it sends nothing more.
CANCEL_TIMEOUT_S = 2.0
# How soon after a message oslo.messaging looks for the next one, when none comes; then after twice as long, and so on.
LOOK_UP_S = 0.1


def apply_patches() -> None:
    """Change oslo.messaging's driver for RabbitMQ, for this process; a second time does no harm."""
    try:
        driver = importlib.import_module(_DRIVER)
    except ImportError:
        report_missing(LIBRARY, _DRIVER, "Idle daemons take more of the processor.")
        return
    _slow_down_idle_consumers(driver)
    _offer_each_reply(driver)


def _slow_down_idle_consumers(driver: Any) -> None:
    """Have a consumer wait for the next message for :data:`LOOK_UP_S` at first, and not for a millisecond.

    A consumer looks after 1, 2, 4, ... ms for acknowledgements that another thread wants sent. RPC has none, since a
    message is acknowledged by the thread that receives it (bug 1695746). Each message cost two or three of these
    looks: a twentieth of the processor time of a console.
    """
    if not hasattr(driver, "ACK_REQUEUE_EVERY_SECONDS_MIN"):
        report_missing(LIBRARY, f"{_DRIVER}.ACK_REQUEUE_EVERY_SECONDS_MIN", "Idle daemons take more of the processor.")
        return
    driver.ACK_REQUEUE_EVERY_SECONDS_MIN = LOOK_UP_S


def _offer_each_reply(driver: Any) -> None:
    """Have a server try to send each reply, although the caller's queue was missing a moment ago.

    A broker that was away for longer than a call is back before all its clients are. A reply to a caller whose queue
    is not there yet is rightly given up. But oslo.messaging then drops every reply to that caller for 60 s: with two
    consoleauths, a proxy had no answer to half of its calls.
    """
    cache: Any = getattr(driver, "ObsoleteReplyQueuesCache", None)
    if not hasattr(cache, "TTL"):
        report_missing(
            LIBRARY,
            f"{_DRIVER}.ObsoleteReplyQueuesCache.TTL",
            "After an outage of the broker, calls may stay without an answer for a minute.",
        )
        return
    cache.TTL = 0


class Consumers:
    """The consumers of one server of oslo.messaging that has been started.

    Why: a message that arrives between the order to stop and the end of the connection, a second later perhaps, is
    acknowledged and dropped, since oslo.messaging deletes its fanout queue when it no longer reads. The caller would
    wait until its deadline, although another server stands ready.
    """

    def __init__(self, server: Any) -> None:
        """Find them; the bus in memory (``fake://``) has none."""
        listener = getattr(getattr(server, "listener", None), "_poll_style_listener", None)
        self._operations: Any = getattr(listener, "_message_operations_handler", None)
        self._connection: Any = getattr(listener, "conn", None)
        self._can_cancel = (
            hasattr(self._operations, "do")
            and hasattr(self._connection, "stop_consuming")
            and hasattr(self._connection, "_consumers")
        )
        self._is_in_memory = type(listener).__module__.endswith(".impl_fake")
        if not self._can_cancel and not self._is_in_memory:
            report_missing(
                LIBRARY,
                "the consumers of a server",
                "A call that arrives while a daemon stops may stay without an answer.",
            )

    def get_subscription(self) -> object | None:
        """Return a new object after each new subscription, and None while there is none.

        oslo.messaging connects and subscribes again by itself, and tells nobody. Then the messages of the time between
        are lost: each subscription has an AMQP channel of its own. Without the private parts it is always the same
        object.
        """
        if not (hasattr(self._connection, "channel") and hasattr(self._connection, "_new_tags")):
            if not self._is_in_memory:
                report_missing(
                    LIBRARY,
                    "the channel of a server",
                    "A revocation that a proxy misses while the broker restarts ends its consoles later.",
                )
            return self
        # The tags are those of the consumers that are still to be started on a new channel.
        return None if self._connection._new_tags else self._connection.channel

    def cancel(self) -> None:
        """Have the broker send nothing more; messages that it has sent are still answered."""
        if not self._can_cancel:
            return
        done = threading.Event()

        def cancel() -> None:
            try:
                for consumer, tag in list(self._connection._consumers.items()):
                    consumer.cancel(tag)
            except BROKER_ERRORS as exc:
                LOG.debug("RPC consumers not cancelled", error=type(exc).__name__)
            finally:
                done.set()

        # In the thread that reads from this connection, since no other may use it; soon, although that thread may wait.
        self._operations.do(cancel)
        self._connection.stop_consuming()
        done.wait(CANCEL_TIMEOUT_S)
