# SPDX-License-Identifier: Apache-2.0
import resource

import pytest

from porthole_common import errors
from porthole_novncproxy.admission.descriptors import check_left
from support.cases import naming


def test_a_console_takes_none_of_the_last_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for limit, last in ((1024, 1007), (64, 55)):
            with naming(limit):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                check_left(last)
                with pytest.raises(errors.DescriptorsExhausted):
                    check_left(last + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
