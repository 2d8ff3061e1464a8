# SPDX-License-Identifier: Apache-2.0
"""One trial of a site: users come and go, consoles stay open, something breaks and comes back; then the reckoning.

Users come through haproxy, as operators have it: a process that is frozen says nothing, and haproxy does.

Why: what must hold is the same whatever broke. No console was the wrong one, no revoked token opened anything, no
console ended that did not run through what broke, every request had an answer in time, and all works again soon.
"""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from support.deadlines import MACHINE_SLACK_S
from support.processes import POLL_S, wait_until
from support.site import Instance, Site
from support.visitors import ASK, NOBODY, OPEN, Crowd, Ledger, Request, Revocations, Session, User

RPC_TIMEOUT_S = 10
DIAL_TIMEOUT_S = 5
# [rpc] call_timeout in all for a console of the api; of the proxy's two calls one may have to wait for its deadline,
# and then the VNC server for its own.
DEADLINES_S = {ASK: RPC_TIMEOUT_S + MACHINE_SLACK_S, OPEN: RPC_TIMEOUT_S + DIAL_TIMEOUT_S + MACHINE_SLACK_S}
# haproxy, where a controller says nothing: an api is taken for gone soon, for a proxy it waits its "timeout server".
BALANCER_DEADLINES_S = {ASK: RPC_TIMEOUT_S + MACHINE_SLACK_S, OPEN: 30 + MACHINE_SLACK_S}
# Whose answer each of the parts that haproxy stands before gives.
STAGES = {"api": ASK, "novncproxy": OPEN}
RECOVERY_S = 15.0
FROZEN_S = 30.0
# What an operator's page says a user may be told.
DEFINED = {ASK: {200, 503}, OPEN: {101, 502, 503, 504}}
BALANCER_DEFINED = {502, 503, 504}


def nobody(_thing: object) -> bool:
    """Excuse nothing."""
    return False


class Trial:
    """Run it as a context; :meth:`breaking` is what happens in it. The reckoning comes at the end, and is printed."""

    def __init__(
        self,
        site: Site,
        name: str,
        report: Callable[[str], object],
        *,
        runs_through: Callable[[Session], bool] = nobody,
        is_excused: Callable[[Request], bool] = nobody,
        stood_still: Callable[[Request], bool] = nobody,
        only_in_flight: bool = False,
        may_end: bool = True,
    ) -> None:
        """``runs_through`` says which consoles may end, ``is_excused`` which requests may have another answer.

        ``stood_still``: for which requests who answered stood still, and had until haproxy gives up to go on.

        Without ``may_end`` those consoles may be silent, as long as it is broken, but must not end.

        With ``only_in_flight`` no request may fail but those under way when it broke, and those that are excused.
        """
        self._may_end = may_end
        self._site, self._name, self._report = site, name, report
        self._runs_through, self._is_excused, self._only_in_flight = runs_through, is_excused, only_in_flight
        self._stood_still = stood_still
        self.ledger = Ledger()
        # Its own instance, since its port changes all the time.
        self._revoked = next(i for i in site.instances if i.compute == 1 and not i.guest)
        self._instances = [instance for instance in site.instances if instance is not self._revoked]
        self._sessions: list[Session] = []
        self._broke_at = self._recovery_s = 0.0

    def __enter__(self) -> Self:
        self._wait_until_all_works()
        with ExitStack() as stack:
            with self._site.user.entered():
                user = User(self._site, self.ledger, balanced=True)
                for instance in [*self._instances, *self._instances]:
                    session = user.visit(instance, 0, 0)
                    assert session, f"a console of {instance}: {self.ledger.failures()}"
                    stack.callback(session.close)
                    self._sessions.append(session)
            assert {session.controller for session in self._sessions} == {0, 1}
            self._crowd = Crowd(self._site, self.ledger, self._instances)
            stack.callback(self._crowd.stop)
            self._revocations = Revocations(self._site, self.ledger, self._revoked)
            stack.callback(self._revocations.stop)
            # So that there is a revoked token to try while it is broken.
            wait_until(lambda: self.ledger.revocations, 30, "the first revocation")
            stack.pop_all()
        return self

    @contextmanager
    def breaking(self, damage: Callable[[], object], mend: Callable[[], object]) -> Iterator[None]:
        """Do the damage, run the block, and ``mend`` it.

        :raises AssertionError: when it does not all work again by itself within 15 s and the machine's allowance.
        """
        damage()
        self._broke_at = time.monotonic()
        try:
            yield
            for session in self._sessions:
                if not self._runs_through(session):
                    session.check()
        except BaseException:
            # The next trial finds a site that is whole; what is wrong here is told already.
            with suppress(AssertionError, OSError):
                mend()
            raise
        mend()
        mended_at = time.monotonic()
        self._recovery_s = self._wait_until_all_works() - mended_at

    def _wait_until_all_works(self) -> float:
        """Return the moment, on the monotonic clock, from which on every api, proxy and compute daemon serves.

        And haproxy asks all of them: it may have taken some for gone.

        :raises AssertionError: when something still did not that was asked 15 s after now.
        """
        samples = {(instance.compute, instance.guest is None): instance for instance in self._instances}
        journeys = [
            (instance, (number + proxy) % 2, proxy)
            for number, instance in enumerate(samples.values())
            for proxy in (0, 1)
        ]
        balancer = self._site.start_balancer()
        deadline = time.monotonic() + RECOVERY_S + MACHINE_SLACK_S
        with ThreadPoolExecutor(len(journeys)) as pool:
            while True:
                begun = time.monotonic()
                failures = [failure for failure in pool.map(self._visit, journeys) if failure]
                failures = failures or [f"haproxy leaves out {server}" for server in balancer.list_down()]
                if not failures and not (failure := self._visit(journeys[0], balanced=True)):
                    return begun
                failures = failures or [f"through haproxy: {failure}"]
                assert begun < deadline, f"after {self._name}, {RECOVERY_S + MACHINE_SLACK_S} s on: {failures}"
                time.sleep(POLL_S)

    def _visit(self, journey: tuple[Instance, int, int], balanced: bool = False) -> str:
        """Return what failed; nothing when the console opened."""
        ledger = Ledger()
        with self._site.user.entered():
            session = User(self._site, ledger, balanced).visit(*journey)
        if session:
            session.close()
            return ""
        return f"{journey}: {ledger.failures()}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._crowd.stop()
        self._revocations.stop()
        lost = [session for session in self._sessions if not _is_alive(session)]
        for session in self._sessions:
            session.close()
        self._print(lost)
        if error is None:
            self._reckon(lost)

    def _reckon(self, lost: list[Session]) -> None:
        ledger = self.ledger
        assert not ledger.wrong
        assert not ledger.revoked_opened
        assert not ledger.revoked_alive
        assert ledger.revocations
        assert not [s.instance for s in lost if not (self._may_end and self._runs_through(s))]
        undefined = [r for r in ledger.requests if not _is_defined(r) and not self._is_excused(r)]
        assert not undefined
        late = [r for r in ledger.requests if self._is_late(r) and not self._is_excused(r)]
        assert not late
        if self._only_in_flight:
            later = [r for r in ledger.requests if r.failed and r.begun > self._broke_at and not self._is_excused(r)]
            assert not later
            assert ledger.p99_s() < RPC_TIMEOUT_S

    def _is_late(self, request: Request) -> bool:
        is_patient = request.controller == NOBODY or self._stood_still(request)
        return request.seconds > (BALANCER_DEADLINES_S if is_patient else DEADLINES_S)[request.kind]

    def _print(self, lost: list[Session]) -> None:
        ledger = self.ledger
        failures = ", ".join(f"{what}: {count}" for what, count in sorted(ledger.failures().items())) or "none"
        slowest_s = max(request.seconds for request in ledger.requests)
        line = (
            f"{self._name}: {len(ledger.requests)} requests, failed {failures}; consoles opened"
            f" {len(ledger.opened_seconds)}, p99 {ledger.p99_s():.2f} s, slowest answer {slowest_s:.1f} s;"
            f" open consoles lost {len(lost)} of {len(self._sessions)}; tokens revoked {ledger.revocations};"
            f" works again after {self._recovery_s:.1f} s"
        )
        self._report(line)


def freeze(site: Site, kind: str, report: Callable[[str], object]) -> None:
    """Have a part stand still for 30 s (SIGSTOP): its kernel accepts connections and bytes, and nothing answers."""
    part = site.part(kind)
    trial = Trial(
        site,
        f"freeze {part.name}",
        report,
        runs_through=lambda session: kind == "novncproxy" and session.controller == 0,
        # They are silent, and go on with the proxy.
        may_end=False,
        stood_still=lambda request: request.controller == 0 and STAGES.get(kind) == request.kind,
    )
    with (
        trial,
        trial.breaking(lambda: part.process.signal(signal.SIGSTOP), lambda: part.process.signal(signal.SIGCONT)),
    ):
        time.sleep(FROZEN_S)


def _is_defined(request: Request) -> bool:
    return request.outcome in (BALANCER_DEFINED if request.controller == NOBODY else DEFINED[request.kind])


def _is_alive(session: Session) -> bool:
    try:
        session.check()
    except OSError:
        return False
    return True
