"""Story: what happens to the demo's three processes, told as it goes, and looked at from outside.

They are told what to do, and tell what they did; what is true the database says.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path

from statedb.claims import Claim
from statedb.database import Database
from statedb.demo import facts
from statedb.demo.company import Company
from statedb.demo.facts import DidNotHappen, Expiry
from statedb.demo.processes import Process
from statedb.demo.repository import Repository
from statedb.demo.scene import Scene, look, tables
from statedb.demo.settings import CLUSTER, CLUSTER_ID, Settings

SCHEDULERS = ("docs", "linux", "macos", "nightly", "release", "windows")
NAMES = ("alpha", "beta", "gamma")
INTERVAL, EXPIRE_AFTER = 0.4, 2.0
#: Seconds that the story may take, and that each call of the database may: with the last call, and
#: one more that cleans up, it is over within 20.
LONGEST, PATIENCE = 15.5, 2.0


class Story:
    """Three processes, and one thing after another."""

    def __init__(self, company: Company, db: Database, url: str, run: str, directory: Path) -> None:
        self._company = company
        self._say = company.say
        self._db = db
        self._url = url
        self._run = run
        self._directory = directory
        self._repository = Repository(directory)
        #: How many commits were made for each scheduler, and the token that it had last.
        self._commits = dict.fromkeys(SCHEDULERS, 0)
        self._tokens: dict[str, int] = {}
        self._expiries: dict[Process, Expiry] = {}
        self._strangers = False
        #: What is waited for.
        self._awaited = ""

    def tell(self) -> None:
        """All of it; raises DidNotHappen."""
        self._begin()
        one, two, three = self._company.processes
        self._kill(two)
        self._show_tables()
        self._stop(three)
        self._leave(one)
        for process in (three, one):
            self._until_ended(process)
        self._show_tables()
        self._judge(killed=two, stopped=three)

    # --- Its chapters ---

    def _begin(self) -> None:
        self._say(f"Run {self._run}, on {self._db!r}.")
        # They take their time to begin, and look for commits only when they are told to go on.
        for name in NAMES:
            self._company.start(self._settings(name))
        self._repository.create()
        for scheduler in SCHEDULERS:
            self._commit(scheduler, "Begin", "Go on")
        self._say(f"A git repository has a branch for each scheduler: {', '.join(SCHEDULERS)}.")
        self._until("all three join", lambda scene: len(self._company.masterids) == len(NAMES))
        told = {one.process.name: one.what["cluster_id"] for one in self._company.heard("joined")}
        stored = self._db.state.thdGetState(self._cluster(), CLUSTER_ID)
        _refuse(facts.faults_of_cluster_ids(told, stored))
        self._say(f"All three were told the same cluster id: {stored}.")
        for process in self._company.processes:
            process.tell("go on")
        self._until_divided()
        self._until_recorded()

    def _kill(self, victim: Process) -> None:
        before = self._look().claims
        self._company.may_end.add(victim)
        self._say(f"{victim.name} is killed with SIGKILL; nobody tells the others.")
        victim.signal(signal.SIGKILL)
        self._until_taken_over(victim, before)
        for claim in before:
            if claim.masterid == self._company.masterids[victim]:
                self._commit(claim.name, f"Found without {victim.name}")
        self._until_recorded()

    def _stop(self, victim: Process) -> None:
        before = self._look().claims
        name = next(one.name for one in before if one.masterid == self._company.masterids[victim])
        victim.tell("pause")
        self._commit(name, "Found by two")
        self._until(
            f"{victim.name} finds a commit in {name}",
            lambda scene: self._company.heard("about to record", victim),
        )
        self._company.may_end.add(victim)
        self._freeze(victim)
        self._say(
            f"{victim.name} found a commit in {name}; stopped with SIGSTOP before it records."
        )
        # It will read this when it is continued, and go on with what it was doing.
        victim.tell("go on")
        self._until_taken_over(victim, before)
        self._until_recorded()
        self._say(f"{victim.name} is continued with SIGCONT.")
        victim.signal(signal.SIGCONT)
        self._until(
            f"{victim.name} is told that it is lost, and gives up",
            lambda scene: (
                self._company.heard("lost", victim) and self._company.heard("gave up", victim)
            ),
        )

    def _leave(self, process: Process) -> None:
        self._say(f"{process.name} is to leave.")
        self._company.may_end.add(process)
        process.tell("leave")

    def _judge(self, *, killed: Process, stopped: Process) -> None:
        """All that the story promises, when nothing can change any more."""
        scene, heads = self._look(), self._repository.heads()
        expiries = list(self._expiries.values())
        faults = [f"master {masterid} has not left" for masterid in scene.active]
        faults += [f"{claim.name} is still held" for claim in scene.claims]
        faults += facts.faults_of_reports(
            expiries, self._company.reports(), strangers=self._strangers
        )
        for name, writes in scene.histories.items():
            faults += facts.faults_of_writes(name, writes, expiries)
            faults += facts.faults_of_commits(name, writes, heads[name], self._commits[name])
        lost = [one.process.name for one in self._company.heard("lost")]
        if lost != [stopped.name]:
            faults.append(f"{stopped.name} was to be told once that it is lost; told were: {lost}")
        faults += [
            f"{process.name} has ended with {process.exit_code()}"
            for process in self._company.processes
            if process is not killed and process.exit_code() != 0
        ]
        _refuse(faults)
        reported = "not more than once" if self._strangers else "once"
        self._say(f"Looked at from outside: each expiry was reported {reported}; tokens have only")
        self._say("grown; nothing was written with an old one; no commit was missed, or found")
        self._say("twice; who was stopped learned of its loss before it wrote anything.")

    # --- What happens in several of them ---

    def _settings(self, name: str) -> Settings:
        return Settings(
            url=self._url,
            run=self._run,
            name=name,
            schedulers=list(SCHEDULERS),
            repository=str(self._directory),
            interval=INTERVAL,
            expire_after=EXPIRE_AFTER,
            timeout=PATIENCE,
        )

    def _cluster(self) -> int:
        return self._db.state.thdGetObjectId(CLUSTER, self._run)

    def _commit(self, scheduler: str, *subjects: str) -> None:
        self._awaited = "git makes commits"
        self._check_time()
        self._repository.commit(scheduler, subjects, when=int(time.time()))
        self._commits[scheduler] += len(subjects)

    def _freeze(self, process: Process) -> None:
        """Stop it at a moment when it keeps nobody from writing.

        Where an engine has one lock for all, a check-in has it for a millisecond; who is stopped
        just then keeps it, and the others can neither check in nor expire anybody.
        """
        cluster = self._cluster()
        self._awaited = f"{process.name} is stopped while it keeps nobody from writing"
        while True:
            self._check_time()
            process.signal(signal.SIGSTOP)
            written = self._db.state.setState(cluster, "stopped", process.name)
            if wait([written], EXPIRE_AFTER / 8).done:
                break
            process.signal(signal.SIGCONT)
            written.result()
        written.result()

    def _until_taken_over(self, victim: Process, before: Sequence[Claim]) -> None:
        """Until it is marked inactive, that is reported, and the others have what it had."""
        masterid = self._company.masterids[victim]
        scene = self._until(
            f"the others mark {victim.name} inactive",
            lambda scene: masterid not in scene.active,
        )
        self._say(f"The database has {victim.name} marked inactive.")
        lengths = {name: len(writes) for name, writes in scene.histories.items()}
        expiry = self._expiries[victim] = Expiry(masterid, victim.name, lengths)
        patience = time.monotonic() + EXPIRE_AFTER / 2
        self._until(
            f"one of the others reports the expiry of {victim.name}",
            lambda scene: (
                any(masterid == reported for _, reported in self._company.reports())
                or (self._strangers and time.monotonic() > patience)
            ),
        )
        _refuse(
            facts.faults_of_reports([expiry], self._company.reports(), strangers=self._strangers)
        )
        if not any(masterid == reported for _, reported in self._company.reports()):
            self._say(f"Another program here was told of the expiry of {victim.name}.")
        after = self._until_divided()
        _refuse(facts.faults_of_tokens(before, after))
        moved = [
            f"{old.name} {old.token} -> {self._tokens[old.name]}"
            for old in before
            if old.masterid == masterid
        ]
        self._say(f"The tokens of what {victim.name} held have grown: {', '.join(moved)}.")

    def _until_divided(self) -> list[Claim]:
        """Until each scheduler has its master; the claims."""
        scene = self._until(
            "the active masters divide the schedulers fairly",
            lambda scene: not facts.faults_of_division(scene.claims, SCHEDULERS, scene.active),
        )
        for process, masterid in self._company.masterids.items():
            if held := [claim.name for claim in scene.claims if claim.masterid == masterid]:
                self._say(f"{process.name} has claimed {', '.join(held)}.")
        self._tokens = {claim.name: claim.token for claim in scene.claims}
        return scene.claims

    def _until_ended(self, process: Process) -> None:
        self._until(f"{process.name} ends", lambda scene: self._company.heard("ended", process))
        self._say(f"{process.name} has ended.")

    def _until_recorded(self) -> None:
        heads = self._repository.heads()
        self._until(
            "all commits are found and recorded",
            lambda scene: (
                not any(
                    facts.faults_of_commits(name, writes, heads[name], self._commits[name])
                    for name, writes in scene.histories.items()
                )
            ),
        )

    def _look(self) -> Scene:
        scene = self._db.run(look, self._run, SCHEDULERS)
        self._strangers = self._strangers or scene.strangers
        return scene

    def _show_tables(self) -> None:
        lines = tables(self._look(), self._company.names(), self._tokens)
        print("", *(f"         {line}".rstrip() for line in lines), "", sep="\n", flush=True)

    # --- Waiting ---

    def _until(self, what: str, happened: Callable[[Scene], object]) -> Scene:
        """The first look at the database for which it has happened."""
        self._awaited = what
        while not happened(scene := self._look()):
            self._company.hear(0.05)
            self._check_time()
        return scene

    def _check_time(self) -> None:
        if time.monotonic() > self._company.started + LONGEST:
            trouble = f" ({self._company.trouble})" if self._company.trouble else ""
            raise DidNotHappen(
                f"this did not happen within {LONGEST:g} seconds: {self._awaited}{trouble}"
            )


def _refuse(faults: list[str]) -> None:
    if faults:
        raise DidNotHappen("; ".join(faults))
