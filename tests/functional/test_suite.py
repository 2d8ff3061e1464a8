# SPDX-License-Identifier: Apache-2.0
"""``support/suite.py`` and ``support/evidence.py`` on small projects of tests: failing, flaky, hanging, dying ones."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.cases import naming
from support.evidence import FOLDER, OUTCOMES
from support.leftovers import find_processes
from support.processes import Process
from support.suite import FLAKY_FILE

TIMEOUT_S = 90
TWO = ("-n", "2")
SUPPORT = Path(__file__).parents[1]
# Fails the first time it runs, in whatever process.
FLAKY = """
    def test_flaky_{name}(project):
        mark = project / "ran-{name}"
        if not mark.exists():
            mark.touch()
            print("the first failure of {name}")
            assert False
"""
HELPERS = """
    import ctypes, os, signal, subprocess, sys, threading, time
    from pathlib import Path
    import pytest
    from support.processes import Process

    @pytest.fixture
    def project():
        return Path(__file__).parent

    def start_server(project):
        server = Process([sys.executable, "-c", "print('the server speaks', flush=True); import time; time.sleep(600)"],
                         project / "server.log", new_session=True)
        server.start()
        server.wait_for_line("the server speaks")
        return server
"""


class Project:
    """A folder with a file of tests, and the suite run on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        (directory / "conftest.py").write_text('pytest_plugins = ["support.evidence"]\n', encoding="ascii")
        (directory / "pytest.ini").write_text("[pytest]\ntimeout = 3\ntimeout_grace = 2\n", encoding="ascii")

    def write(self, *sources: str) -> None:
        """Write the tests; ``sources`` come after what all of them may use."""
        text = "\n".join(textwrap.dedent(source) for source in (HELPERS, *sources))
        (self.directory / "test_it.py").write_text(text, encoding="ascii")

    def process(self, *arguments: str, **environment: str) -> Process:
        """Return the suite, not started; with ``*TWO`` it gives the tests to two processes."""
        argv = ["env", "-C", str(self.directory), sys.executable, "-m", "support.suite"]
        argv += ["-p", "no:cacheprovider", *arguments, "test_it.py"]
        process = Process(argv, self.directory / "suite.out", environment, name="suite", new_session=True)
        for name in (FOLDER, OUTCOMES, FLAKY_FILE, *(name for name in os.environ if name.startswith("PYTEST_"))):
            process.env.pop(name, None)
        path = os.pathsep.join(filter(None, (str(SUPPORT), os.environ.get("PYTHONPATH"))))
        # Of the plugins that are installed, those that the suite itself needs: loading them all takes longest of all.
        plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin,pytest_timeout"}
        process.env |= {"PYTHONPATH": path, "TMPDIR": str(self.temporary), **plugins, **environment}
        return process

    def has_server(self) -> bool:
        """Whether the test's server runs."""
        log = self.directory / "server.log"
        return log.exists() and "the server speaks" in log.read_text(encoding="ascii")

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run the suite to its end; return exit status and output. Nothing is left."""
        process = self.process(*arguments, **environment)
        process.start()
        status = process.wait(TIMEOUT_S)
        assert find_processes(self.temporary) == {}
        assert list(self.temporary.iterdir()) == []
        return status, process.log()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_two_flaky_tests_leave_the_run_green_and_are_named_with_their_first_failure(project: Project) -> None:
    project.write("def test_good(): pass", *(FLAKY.format(name=name) for name in "ab"))
    status, output = project.run(*TWO)
    assert status == 0, output
    for name in "ab":
        assert f"FLAKY test_it.py::test_flaky_{name}" in output.splitlines()
        said = output.partition(f"FLAKY test_it.py::test_flaky_{name}: it failed, and passed when")[2]
        assert f"the first failure of {name}" in said
    assert output.splitlines()[-2:] == ["3 ran, 0 failed, 2 flaky", "3 passed, 0 failed"]


def test_a_third_flaky_test_makes_the_run_red(project: Project, tmp_path: Path) -> None:
    project.write(*(FLAKY.format(name=name) for name in "abc"))
    status, output = project.run()
    assert status == 1
    assert "3 tests of this run are FLAKY" in output
    assert "3 ran, 0 failed, 3 flaky" in output


def test_stages_count_together(project: Project, tmp_path: Path) -> None:
    count = tmp_path / "flaky"
    count.write_text("one\ntwo\n", encoding="ascii")
    project.write(FLAKY.format(name="a"))
    status, output = project.run(**{FLAKY_FILE: str(count)})
    assert status == 1, output
    assert count.read_text(encoding="ascii").splitlines()[2:] == ["test_it.py::test_flaky_a"]


def test_a_failure_is_run_once_more_and_no_other_test_is(project: Project) -> None:
    count = "with (project / 'runs').open('a') as f: f.write('{name} ')"
    project.write(
        f"def test_good(project):\n    {count.format(name='good')}",
        f"def test_bad(project):\n    {count.format(name='bad')}\n    assert False",
    )
    status, output = project.run()
    assert status == 1
    assert sorted((project.directory / "runs").read_text(encoding="ascii").split()) == ["bad", "bad", "good"]
    assert output.splitlines()[-2:] == ["2 ran, 1 failed, 0 flaky", "1 passed, 1 failed"]


def test_a_failure_that_is_skipped_when_it_is_run_again_is_a_failure(project: Project) -> None:
    project.write(
        """
        def test_bad(project):
            mark = project / "ran"
            if mark.exists():
                pytest.skip("not today")
            mark.touch()
            assert False
        """
    )
    status, output = project.run()
    assert status == 1
    assert output.splitlines()[-2:] == ["1 ran, 1 failed, 0 flaky", "0 passed, 1 failed"]


def test_many_failures_end_the_run_and_none_is_run_again(project: Project) -> None:
    project.write("@pytest.mark.parametrize('number', range(40))\ndef test_bad(number): assert False")
    status, output = project.run(*TWO)
    assert status != 0
    assert "Once more" not in output
    ran, failed = map(int, re.findall(r"^(\d+) ran, (\d+) failed, 0 flaky$", output, re.MULTILINE)[0])
    assert 10 <= failed <= ran < 40


def test_a_file_that_cannot_be_read_makes_the_run_red(project: Project) -> None:
    project.write("import no_such_module")
    status, output = project.run()
    assert status != 0
    assert "no_such_module" in output


def test_a_test_that_waits_for_ever_is_ended_with_stacks_and_logs(project: Project) -> None:
    project.write(
        """
        def waiting_for_godot():
            threading.Event().wait()

        def test_waits(project):
            start_server(project)
            threading.Thread(target=waiting_for_godot, daemon=True).start()
            threading.Event().wait()
        """
    )
    status, output = project.run()
    assert status == 1
    assert "The test did not end within 3 s." in output
    assert "in waiting_for_godot" in output
    assert re.search(r"Log of python\S* \(process \d+, running\)", output)
    assert "the server speaks" in output


def test_a_server_that_a_signal_holds_is_called_so(project: Project) -> None:
    project.write(
        """
        def test_server_is_held(project):
            server = start_server(project)
            server.signal(signal.SIGSTOP)
            assert False
        """
    )
    status, output = project.run()
    assert status == 1
    assert "stopped by a signal" in output


def test_a_test_that_never_comes_back_from_c_is_ended_with_its_process(project: Project) -> None:
    project.write(
        """
        def test_deadlock(project):
            start_server(Path(os.environ["TMPDIR"]))
            mutex = ctypes.create_string_buffer(64)
            lock = ctypes.CDLL(None).pthread_mutex_lock
            lock(mutex)
            lock(mutex)

        def test_good(): pass
        """
    )
    status, output = project.run(*TWO)
    assert status == 1, output
    assert "in test_deadlock" in output
    assert "the server speaks" in output
    assert "2 ran, 1 failed, 0 flaky" in output


def test_a_test_that_kills_its_process_is_not_repeated_there_and_the_others_run(project: Project) -> None:
    """A crash in company that passes alone is FLAKY, and what fails behind it fails."""
    project.write(
        """
        def test_kills(project):
            with (project / "kills").open("a") as log:
                log.write("x")
            if "PYTEST_XDIST_WORKER" in os.environ:
                os.kill(os.getpid(), signal.SIGKILL)

        @pytest.mark.parametrize("number", range(4))
        def test_after(number):
            assert number != 2
        """
    )
    status, output = project.run(*TWO, "--dist", "loadfile")
    assert status == 1, output
    assert "FLAKY test_it.py::test_kills" in output.splitlines()
    assert "FAILED test_it.py::test_after[2]" in output.splitlines()
    assert output.splitlines()[-2] == "5 ran, 1 failed, 1 flaky"
    # Once in company, once alone.
    assert (project.directory / "kills").read_text(encoding="ascii") == "xx"


def test_what_breaks_outside_the_tests_is_red_and_says_so(project: Project) -> None:
    """With a flaky test beside it, whose failure would explain pytest's status."""
    breaks = {
        "def pytest_unconfigure(config):\n    if not hasattr(config, 'workerinput'): raise RuntimeError": "last step",
        "def pytest_sessionfinish(session):\n    if hasattr(session.config, 'workerinput'):\n"
        "        import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "died outside a test",
    }
    for hook, expected in breaks.items():
        with naming(expected):
            (project.directory / "ran-a").unlink(missing_ok=True)
            (project.directory / "suite.out").unlink(missing_ok=True)
            project.write("def test_good(): pass", FLAKY.format(name="a"))
            (project.directory / "conftest.py").write_text(
                f'pytest_plugins = ["support.evidence"]\n{hook}\n', encoding="ascii"
            )
            status, output = project.run(*TWO)
            assert status == 1, output
            assert expected in output, output


def test_tests_that_did_not_run_make_the_run_red(project: Project) -> None:
    project.write("def test_good(): pass", "def test_ends_the_run(): pytest.exit('enough', 0)")
    status, output = project.run()
    assert status == 1, output
    assert "1 of 2 tests did not run." in output


def test_a_file_that_takes_too_long_to_collect_is_ended_with_a_stack(project: Project) -> None:
    project.write("time.sleep(600)", "def test_good(): pass")
    (project.directory / "conftest.py").write_text(
        'import support.evidence\nsupport.evidence._PHASE_TIMEOUT_S = 3\npytest_plugins = ["support.evidence"]\n',
        encoding="ascii",
    )
    status, output = project.run()
    assert status == 1, output
    assert "test_it.py" in output


def test_ctrl_c_ends_everything(project: Project) -> None:
    project.write("def test_waits(project):\n    start_server(project)\n    time.sleep(600)")
    (project.directory / "pytest.ini").write_text("[pytest]\ntimeout = 600\n", encoding="ascii")
    process = project.process(*TWO)
    process.start()
    process.wait_for(project.has_server, TIMEOUT_S, "the test's server")
    process.signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130, process.log()
    assert find_processes(project.temporary) == {}
    assert list(project.temporary.iterdir()) == []


def test_a_signal_to_the_suite_alone_ends_everything(project: Project) -> None:
    (project.directory / "pytest.ini").write_text("[pytest]\ntimeout = 600\n", encoding="ascii")
    project.write("def test_waits(project):\n    start_server(project)\n    time.sleep(600)")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        with naming(number.name):
            (project.directory / "server.log").unlink(missing_ok=True)
            process = project.process()
            process.start()
            process.wait_for(project.has_server, TIMEOUT_S, "the test's server")
            os.kill(process.pid, number)
            assert process.wait(TIMEOUT_S) == 1, process.log()
            assert find_processes(project.temporary) == {}
            assert list(project.temporary.iterdir()) == []


def test_what_a_killed_run_left_is_ended_by_the_next(project: Project) -> None:
    project.write("def test_waits(project):\n    start_server(project)\n    time.sleep(600)")
    (project.directory / "pytest.ini").write_text("[pytest]\ntimeout = 600\n", encoding="ascii")
    process = project.process(*TWO)
    process.start()
    process.wait_for(project.has_server, TIMEOUT_S, "the test's server")
    process.kill()
    assert find_processes(project.temporary) != {}
    project.write("def test_good(): pass")
    status, output = project.run(*TWO)
    assert status == 0, output
    assert "Left behind by an earlier run, and ended" in output


def test_what_a_test_leaves_is_ended_and_named(project: Project) -> None:
    project.write(
        """
        def test_leaves(project):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        """
    )
    status, output = project.run()
    assert status == 0, output
    assert "Left behind by the tests, and ended:" in output


def test_processes_of_a_folder_with_a_longer_name_are_others(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{tmp_path}-other/file"])
    try:
        assert process.pid not in find_processes(tmp_path)
        assert process.pid in find_processes(Path(f"{tmp_path}-other"))
    finally:
        process.kill()
        process.wait(TIMEOUT_S)


def test_help_is_the_head_comment() -> None:
    script = Path(__file__).parents[1] / "run.sh"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Runs every check of Porthole")
    assert "\n  tests/run.sh [STAGE...] [-- ARGUMENT...]\n" in done.stdout
