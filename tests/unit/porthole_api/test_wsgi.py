# SPDX-License-Identifier: Apache-2.0
"""The application for WSGI servers: built once in each process, and only when it is needed."""

import os
import select
import threading
from typing import Any

import webob

from porthole_api.request import build_json
from porthole_api.wsgi import LazyApplication, application


class Builder:
    """Builds an application that answers with the number of the build."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Any:
        self.count += 1
        return build_json({"build": self.count, "pid": os.getpid()})


def ask(lazy: LazyApplication) -> Any:
    return webob.Request.blank("/").get_response(lazy).json


def test_nothing_is_built_before_the_first_request() -> None:
    builder = Builder()
    lazy = LazyApplication(builder)
    assert builder.count == 0
    assert (ask(lazy)["build"], ask(lazy)["build"]) == (1, 1)


def test_first_requests_at_the_same_time_build_one() -> None:
    builder = Builder()
    lazy = LazyApplication(builder)
    threads = [threading.Thread(target=ask, args=(lazy,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert builder.count == 1


def test_a_forked_process_builds_its_own() -> None:
    lazy = LazyApplication(Builder())
    parents = ask(lazy)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(ask(lazy)).encode())
        os._exit(0)
    os.close(writer)
    assert select.select([reader], [], [], 30)[0], "the child says nothing"
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        assert answer.read() == str({"build": 2, "pid": child})
    assert ask(lazy) == parents


def test_importing_it_builds_nothing() -> None:
    assert application._built is None
