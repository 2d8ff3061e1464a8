# SPDX-License-Identifier: Apache-2.0
"""Property tests fail on what they find, never on how long a busy machine takes for it.

What the support package asserts says what it saw, as the tests do. Every test ends, and leaves evidence when it fails
(``support/evidence.py``).
"""

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["support.evidence"]
pytest.register_assert_rewrite("support")
settings.register_profile("porthole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("porthole")
