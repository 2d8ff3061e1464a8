# SPDX-License-Identifier: Apache-2.0
"""porthole-consoleauth: keeps and checks console tokens."""
