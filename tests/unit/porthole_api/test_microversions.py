# SPDX-License-Identifier: Apache-2.0
"""Which microversion a request's headers ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webob import exc

from porthole_api.microversions import build_headers, parse_version
from support.cases import naming

NEW, OLD = "OpenStack-API-Version", "X-OpenStack-Nova-API-Version"


def test_the_version_that_is_asked_for() -> None:
    cases = [
        ({}, (2, 1)),
        ({NEW: "compute 2.6"}, (2, 6)),
        ({OLD: "2.8"}, (2, 8)),
        ({NEW: "compute 2.6", OLD: "2.8"}, (2, 6)),
        ({NEW: "compute latest"}, (2, 96)),
        ({OLD: "latest"}, (2, 96)),
        ({NEW: "volume 3.50", OLD: "2.8"}, (2, 8)),
        ({NEW: "volume 3.50, compute 2.26"}, (2, 26)),
        ({NEW: "volume 3.50"}, (2, 1)),
        ({NEW: "COMPUTE 2.96"}, (2, 96)),
        ({OLD: ""}, (2, 1)),
    ]
    for headers, version in cases:
        with naming(headers, version):
            assert parse_version(headers) == version


def test_a_malformed_version_is_a_bad_request() -> None:
    cases = ["2", "2.", ".1", "2.x", "2.01", "02.1", "2.1.1", "-2.1", "2.+6", "Latest", "2.\u0661", "2." + "9" * 5000]
    for text in cases:
        with naming(text):
            with pytest.raises(exc.HTTPBadRequest, match="invalid format"):
                parse_version({NEW: f"compute {text}"})
            with pytest.raises(exc.HTTPBadRequest, match="invalid format"):
                parse_version({OLD: text})


def test_a_version_out_of_range_is_not_acceptable_and_the_range_is_said() -> None:
    for text in ["2.0", "2.97", "2.999", "1.1", "3.0", "99999.99999"]:
        with naming(text):
            with pytest.raises(exc.HTTPNotAcceptable) as caught:
                parse_version({NEW: f"compute {text}"})
            assert caught.value.detail == (
                f"Version {text} is not supported by the API. Minimum is 2.1 and maximum is 2.96."
            )


@given(st.text(), st.text())
def test_any_headers_give_a_version_or_one_of_the_two_errors(new: str, old: str) -> None:
    version, message = (2, 1), ""
    try:
        version = parse_version({NEW: new, OLD: old})
    except (exc.HTTPBadRequest, exc.HTTPNotAcceptable) as error:
        message = error.detail
    assert (2, 1) <= version <= (2, 96)
    assert len(message) < 200


def test_the_answers_headers_name_the_version_and_both_request_headers() -> None:
    assert dict(build_headers((2, 6))) == {NEW: "compute 2.6", OLD: "2.6", "Vary": f"{NEW}, {OLD}"}
