# SPDX-License-Identifier: Apache-2.0
import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_cli.clouds_file import check_clouds, check_clouds_files
from porthole_cli.errors import CloudInvalid


def test_shapes_that_are_no_cloud(tmp_path: Path) -> None:
    path = tmp_path / "clouds.yaml"
    for text, expected in (
        ("clouds:", "'clouds' must be a mapping of names to clouds; it is empty."),
        ("clouds: [a]", "'clouds' must be a mapping of names to clouds; it is of the type list."),
        ("clouds: {a: }", "'clouds.a' must be a mapping of keys to values; it is empty."),
        ("clouds: {a: hello}", "'clouds.a' must be a mapping of keys to values; it is of the type str."),
        (
            "clouds: {a: {auth: hello}}",
            "'clouds.a.auth' must be a mapping, like {auth_url: URL, username: NAME}; it is of the type str.",
        ),
        (
            "clouds: {a: {auth: }}",
            "'clouds.a.auth' must be a mapping, like {auth_url: URL, username: NAME}; it is empty.",
        ),
        (
            "clouds: {a: {auth_type: [x]}}",
            "'clouds.a.auth_type' must be a name, like password; it is of the type list.",
        ),
        ("clouds: {a: {regions: 5}}", "'clouds.a.regions' must be a list of names; it is of the type int."),
        (
            "clouds: {a: {api_timeout: abc}}",
            "'clouds.a.api_timeout' must be a number of seconds; it is 'abc'.",
        ),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(CloudInvalid) as caught:
            check_clouds_files([str(tmp_path / "gone.yaml"), str(path)], "a")
        assert str(caught.value) == f"{path}: the key {expected}"


def test_another_cloud_and_good_values_and_a_file_that_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("clouds: {a: [", encoding="utf-8")
    (tmp_path / "good.yaml").write_text(
        "clouds: {a: {auth: {}, auth_type: none, api_timeout: '2.5', regions: [one]}, b: }", encoding="utf-8"
    )
    (tmp_path / "later.yaml").write_text("clouds:", encoding="utf-8")
    check_clouds_files([str(tmp_path / name) for name in ("bad.yaml", "good.yaml", "later.yaml")], "a")
    for document in (None, "hello", [], {}, {"cache": {}}, {"clouds": {}}):
        check_clouds("clouds.yaml", document, "a")


@given(st.recursive(st.none() | st.integers() | st.text() | st.booleans(), st.lists))
def test_no_value_is_another_error(value: object) -> None:
    for key in ("auth", "auth_type", "regions", "api_timeout"):
        with contextlib.suppress(CloudInvalid):
            check_clouds("clouds.yaml", {"clouds": {"a": {key: value}}}, "a")
