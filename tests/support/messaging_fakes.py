# SPDX-License-Identifier: Apache-2.0
"""oslo.messaging's server for RabbitMQ, as far as Porthole touches it when a server starts and stops."""

from collections.abc import Callable


class FakeListener:
    """The listener of such a server, with its private parts; the thread that reads is the calling one."""

    def __init__(self, events: list[str], error: Exception | None = None) -> None:
        self._poll_style_listener = self
        self._message_operations_handler = self
        self.conn = self
        self._consumers = {self: 7}
        self.channel: object = object()
        self._new_tags: set[int] = set()
        self._events, self._error = events, error

    def do(self, task: Callable[[], None]) -> None:
        task()

    def cancel(self, tag: int) -> None:
        self._events.append(f"cancel {tag}")
        if self._error:
            raise self._error

    def stop_consuming(self) -> None:
        self._events.append("stop consuming")


class FakeServer:
    """The server: ``events`` says what was done to it; ``error`` is what cancelling a consumer raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.events: list[str] = []
        self.listener = FakeListener(self.events, error)

    def start(self, override_pool_size: int | None) -> None:
        """Nothing."""

    def stop(self) -> None:
        self.events.append("stop")

    def wait(self) -> None:
        self.events.append("wait")
