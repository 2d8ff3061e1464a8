# SPDX-License-Identifier: Apache-2.0
"""How many new console URLs a user may ask for in a minute.

Why: each URL is a token, and takes room in the token store until it expires. Without a bound one tenant could fill the
store, and then no other user would get a console. The bound is far above what people and portals ask for. A user has
one in each project: the account of a portal asks for many people. Administrators have none: they could end every
console anyway, and a portal may ask with their rights. Each api process counts for itself, so the bound is as many
times higher as there are api processes. Called by :mod:`porthole_api.consoles`.
"""

import hashlib
import json
import math
import threading
from collections.abc import Callable

from porthole_common import errors
from porthole_common.allowance import Allowance
from porthole_common.context import RequestContext

OPTION = "[api] max_consoles_per_minute"


class ConsoleLimit:
    """The limit of one process. Thread-safe; ``clock`` returns monotonic seconds.

    A user may ask for ``per_minute`` at once, and the same number again evenly spread over each minute; 0: any number.
    """

    def __init__(self, clock: Callable[[], float], per_minute: int) -> None:
        self._lock = threading.Lock()
        self._allowance: Allowance[bytes] | None = Allowance(clock, per_minute, 60 / per_minute) if per_minute else None

    def take(self, context: RequestContext) -> None:
        """Count one new console of the user.

        :raises RateReached: when the user has asked for too many.
        """
        if self._allowance is None or context.is_admin:
            return
        # Of one length, however long the identity service's names are.
        user = hashlib.sha256(json.dumps([context.user_id, context.project_id]).encode()).digest()
        with self._lock:
            wait_s = self._allowance.wait_s(user)
            if wait_s == 0:
                self._allowance.add(user, 1)
        if wait_s > 0:
            raise errors.RateReached(OPTION, math.ceil(wait_s))
