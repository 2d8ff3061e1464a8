# SPDX-License-Identifier: Apache-2.0
"""oslo.messaging, imported for threads: the one module that imports the library, and where the others get it.

Why: oslo.messaging imports oslo.service, which chooses eventlet unless it is told otherwise before its import. The
modules :mod:`porthole_common.rpc`, ``rpc_client``, ``rpc_server`` and ``rpc_transport`` make use of it; no other does.
"""

# ruff: noqa: E402
import os
import warnings

# futurist, which oslo.messaging uses, imports eventlet where it is installed; its notice is not for operators.
warnings.filterwarnings("ignore", message=r"(?s).*Eventlet is deprecated")
# eventlet's own resolver, which Porthole does not use, costs a fifth of a second of each start and 17 MiB of memory.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)

import logging

import amqp  # type: ignore[import-untyped]
import kombu.exceptions
import oslo_messaging
from oslo_messaging import opts as oslo_messaging_opts
from oslo_messaging.rpc.dispatcher import DefaultRPCAccessPolicy

from porthole_common.deadline import DeadlinePassed

__all__ = ["BROKER_ERRORS", "DefaultRPCAccessPolicy", "oslo_messaging", "oslo_messaging_opts"]

# One connection to send with is meant so; oslo.messaging warns each time a thread waits for it. oslo.log names the
# loggers of oslo_x "oslo.x".
logging.getLogger("oslo.messaging._drivers.pool").setLevel(logging.ERROR)
# stevedore warns of an unknown transport, which ends the start with an error of its own.
logging.getLogger("stevedore.named").setLevel(logging.ERROR)
# What a broker in trouble raises through oslo.messaging: some of it unmapped.
BROKER_ERRORS = (
    oslo_messaging.MessagingException,
    kombu.exceptions.KombuError,
    amqp.AMQPError,
    OSError,
    DeadlinePassed,
)
