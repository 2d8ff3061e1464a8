# SPDX-License-Identifier: Apache-2.0
"""Descriptors that run out: which errors say so, and the last ones, which no console may take.

Why: a client that gets no console must still be accepted and told why, and ``/healthcheck`` must still answer (S41).
Called by :mod:`porthole_novncproxy.admission.gate` and ``dial``, and by ``front.listener`` and
:mod:`porthole_novncproxy.server` for the errors.
"""

import errno
import resource

from porthole_common import errors

# The process, or the system, can open no more.
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
# For clients that are refused, pages and health checks at the same moment; at most an eighth of all.
_KEPT_BACK = 16


def check_left(fd: int) -> None:
    """Refuse a console whose connection to the VNC server got one of the last descriptors, by its number ``fd``.

    The kernel hands out the lowest free number, so nearly all others are open.

    :raises DescriptorsExhausted: when it did.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and fd >= limit - min(_KEPT_BACK, limit // 8):
        raise errors.DescriptorsExhausted
