# SPDX-License-Identifier: Apache-2.0
"""One module per kind of resource: from a request to an answer, with no decision of its own."""
