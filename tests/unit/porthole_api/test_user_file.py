# SPDX-License-Identifier: Apache-2.0
"""Which lines of an htpasswd file are served, and what the log says of the others."""

from pathlib import Path

import pytest

from porthole_api.user_file import UserFile, parse_users
from support.cases import naming

DIGEST = "$2y$05$" + "a" * 53
OTHER = "$2b$12$" + "b" * 53


def test_users_come_with_their_hashes() -> None:
    content = f"rita:{DIGEST}\nbert:{OTHER}\nzoë:{DIGEST}"
    assert parse_users(content.encode()) == ({"rita": DIGEST, "bert": OTHER, "zoë": DIGEST}, [])


def test_what_apache_passes_over_is_passed_over() -> None:
    cases = ["", "# comment", "#rita:x", "  # indented", "\t", "# na\xefve".encode("latin-1")]
    for line in cases:
        with naming(line):
            text = line.encode() if isinstance(line, str) else line
            for end in (b"\n", b"\r\n"):
                assert parse_users(end.join([text, f"rita:{DIGEST}".encode(), b""])) == ({"rita": DIGEST}, [])


def test_what_editors_add_is_no_part_of_a_name() -> None:
    assert parse_users(f"\ufeffrita:{DIGEST} \r\n".encode()) == ({"rita": DIGEST}, [])
    assert parse_users(f"rita:{DIGEST}:Rita Meyer\n".encode()) == ({"rita": DIGEST}, [])


def test_an_entry_that_is_not_bcrypt_is_skipped_alone() -> None:
    cases = [
        "old",
        "old:",
        f":{DIGEST}",
        "old:secret",
        "old:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=",
        "old:$apr1$rOioh4Wh$bVD3DRwksETubcpEH90ww0",
        "old:$2y$05$short",
        f"old:$2y$03${'a' * 53}",
        f"old:$2y$32${'a' * 53}",
        f"old:{DIGEST}a",
        f"zo\xeb:{DIGEST}",
    ]
    for line in cases:
        with naming(line):
            content = f"rita:{DIGEST}\n{line}\nbert:{OTHER}\n".encode("latin-1")
            assert parse_users(content) == ({"rita": DIGEST, "bert": OTHER}, [2])


def test_of_two_entries_for_a_user_the_first_counts_served_or_not() -> None:
    assert parse_users(f"rita:{DIGEST}\nrita:{OTHER}\n".encode()) == ({"rita": DIGEST}, [])
    assert parse_users(f"rita:secret\nrita:{OTHER}\n".encode()) == ({}, [1])


def test_the_log_names_the_lines_and_nothing_of_them_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "htpasswd"
    file = UserFile(str(path))
    path.write_text("# users\nold:$apr1$secret\nsecret\n")
    for _ in range(3):
        file.read()
    assert caplog.messages == [f'User entries skipped file={path} lines="2, 3"']
    path.write_text("secret\n" * 1000)
    file.read()
    assert caplog.messages[1].endswith('19, 20, ..."')
    path.write_text(f"rita:{DIGEST}\n")
    file.read()
    assert len(caplog.records) == 2
    assert "secret" not in caplog.text


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        UserFile(str(tmp_path / "none")).read()
