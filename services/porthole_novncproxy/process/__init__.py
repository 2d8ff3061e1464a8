# SPDX-License-Identifier: Apache-2.0
"""Several processes of the proxy behind one port.

``supervisor`` opens the ports and has cotyledon start the workers; ``heartbeat`` is how each worker shows that it is
alive, and how the supervisor ends a worker that is blocked.
"""
