# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator

import pytest
from oslo_config import cfg

from porthole_common import errors
from porthole_common.audit import build_notifier
from support.bus import parse_global_conf
from support.history import new_id, opened
from support.processes import wait_until

GROUP = "oslo_messaging_notifications"


@pytest.fixture
def conf() -> Iterator[cfg.ConfigOpts]:
    parse_global_conf()
    assert build_notifier(cfg.CONF) is None, "it is off unless a driver is set"
    yield cfg.CONF
    cfg.CONF.reset()
    for name in ("driver", "transport_url"):
        cfg.CONF.clear_override(name, group=GROUP)


def test_an_event_is_sent_to_the_driver(conf: cfg.ConfigOpts) -> None:
    # Not at the top: porthole_common.messaging must have chosen the threading backend before oslo.messaging comes in.
    from oslo_messaging.notify import _impl_test

    conf.set_override("driver", ["test"], group=GROUP)
    conf.set_override("transport_url", "fake://", group=GROUP)
    notifier = build_notifier(conf)
    assert notifier is not None
    notifier.start()
    _impl_test.reset()
    events = [opened(new_id()) for _ in range(3)]
    for event in events:
        notifier.notify(event)
    wait_until(lambda: len(_impl_test.NOTIFICATIONS) == 3, 10, "the notifications")
    notifier.stop()
    messages = [message for _context, message, _priority, _retry in _impl_test.NOTIFICATIONS]
    _impl_test.reset()
    assert [message["payload"]["id"] for message in messages] == [event.id for event in events]
    assert {message["event_type"] for message in messages} == {"console.session.start"}
    assert messages[0]["publisher_id"] == f"console.{conf.host}"


def test_a_transport_that_does_not_do_names_its_option_and_no_password(conf: cfg.ConfigOpts) -> None:
    conf.set_override("driver", ["messagingv2"], group=GROUP)
    conf.set_override("transport_url", "nonsense://u:secret@h/", group=GROUP)
    with pytest.raises(errors.ConfigInvalid, match=r"\[oslo_messaging_notifications\] transport_url") as refused:
        build_notifier(conf)
    assert "secret" not in str(refused.value)
