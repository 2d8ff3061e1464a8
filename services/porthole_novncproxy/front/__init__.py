# SPDX-License-Identifier: Apache-2.0
"""The side of the proxy that clients see: listeners, requests, pages, and the upgrade."""
