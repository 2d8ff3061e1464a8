# SPDX-License-Identifier: Apache-2.0
"""Several processes of the proxy behind one port, and how each shows that it is alive."""
