# SPDX-License-Identifier: Apache-2.0
import logging

import pytest


@pytest.fixture
def info_is_logged(caplog):
    caplog.set_level(logging.INFO, "porthole_novncproxy")
