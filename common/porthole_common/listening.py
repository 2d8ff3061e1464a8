# SPDX-License-Identifier: Apache-2.0
"""Why a daemon cannot listen: an option that must be edited, or an address that may be free or there later.

Why it matters: systemd does not start a daemon again whose configuration is wrong (exit status 78). A port that another
process still has, or a virtual address that another controller has, is no such case. Called wherever a listening socket
is made.
"""

import errno

from porthole_common.errors import AddressUnavailable, ConfigInvalid

# A port below 1024, an address family that this machine does not have, or an invalid address.
_ONLY_AN_EDIT_MENDS = frozenset({errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EINVAL})


def map_bind_error(option: str, address: str, error: OSError) -> ConfigInvalid | AddressUnavailable:
    """Return the error for a socket that cannot be bound to ``address``, which ``option`` names."""
    reason = f"{address}: {error.strerror or error}"
    kind = ConfigInvalid if error.errno in _ONLY_AN_EDIT_MENDS else AddressUnavailable
    return kind(option, reason)
