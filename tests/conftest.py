# SPDX-License-Identifier: Apache-2.0
"""Property tests fail on what they find, never on how long a busy machine takes for it."""

from hypothesis import HealthCheck, settings

settings.register_profile("porthole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("porthole")
