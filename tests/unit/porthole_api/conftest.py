# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator

import pytest
from oslo_context import context as oslo_context


@pytest.fixture
def no_context_stays() -> Iterator[None]:
    """For tests that make a context outside a request, which would take it off the thread at its end."""
    yield
    vars(oslo_context._request_store).pop("context", None)
