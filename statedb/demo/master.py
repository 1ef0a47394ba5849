"""Master: one of the demo's processes, which does its work on schedulers that it has claimed.

``python -m statedb demo`` starts it; it is told what to do by lines on its standard input, ends
when that does, and says what happens to it in lines of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from statedb.claims import Claim
from statedb.database import Database, connect
from statedb.demo.facts import Write
from statedb.demo.repository import Repository
from statedb.demo.settings import CLUSTER, CLUSTER_ID, WRITES, Settings, master_name
from statedb.errors import (
    AlreadyClaimedError,
    ClaimLostError,
    DatabaseError,
    Error,
    MasterInDoubtError,
    MasterLostError,
)
from statedb.masters import MasterModel
from statedb.membership import Member
from statedb.resultspec import Filter, ResultSpec

#: Seconds between looks at the repository.
_ROUND = 0.15
_STANDARD_INPUT = 0


class Commands:
    """The lines on the standard input; each is told once."""

    def __init__(self) -> None:
        self._text = b""

    def next(self, timeout: float | None = None) -> str | None:
        """The next line, or None if there is none in time. ``leave`` at the input's end."""
        while b"\n" not in self._text:
            ready, _, _ = select.select([_STANDARD_INPUT], [], [], timeout)
            if not ready:
                return None
            more = os.read(_STANDARD_INPUT, 65536)
            if not more:
                return "leave"
            self._text += more
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()


_speaking = threading.Lock()


def say(event: str, **what: Any) -> None:
    """One line for whoever tells the story."""
    with _speaking:
        sys.stdout.write(json.dumps({"event": event, **what}) + "\n")
        sys.stdout.flush()


class Master:
    """Claims its share of the schedulers, and records what is new on each one's branch."""

    def __init__(self, db: Database, settings: Settings, commands: Commands) -> None:
        self._db = db
        self._settings = settings
        self._commands = commands
        self._repository = Repository(Path(settings.repository))
        self._claims: dict[str, Claim] = {}
        #: Whether to wait for a word between finding a commit and recording it.
        self._pausing = False

    def work(self) -> None:
        """From joining until told to leave, or until the place is lost."""
        settings = self._settings
        with self._db.masters.join(
            master_name(settings.run, settings.name),
            interval=settings.interval,
            expire_after=settings.expire_after,
            on_expired=_say_expired,
            on_lost=lambda member: say("lost"),
        ) as member:
            objectid = self._db.state.thdGetObjectId(CLUSTER, settings.run)
            # Whoever is first makes it up; all others are told the same.
            cluster_id = self._db.state.thdAtomicCreateState(
                objectid, CLUSTER_ID, lambda: str(uuid.uuid4())
            )
            say("joined", masterid=member.id, cluster_id=cluster_id)
            if self._commands.next() == "leave":
                return
            try:
                while self._obey(self._commands.next(_ROUND)):
                    self._round(member)
            except MasterLostError as error:
                say("gave up", error=str(error))

    def _obey(self, command: str | None) -> bool:
        if command == "pause":
            self._pausing = True
        return command != "leave"

    def _round(self, member: Member) -> None:
        try:
            member.check()
            self._claim_share(member)
            heads = self._repository.heads()
            for claim in list(self._claims.values()):
                self._poll(claim, heads[claim.name])
        except ClaimLostError as error:
            # What the transaction was to write is not written.
            say("refused", error=str(error))
            self._claims.clear()
        except (MasterInDoubtError, DatabaseError) as error:
            say("trouble", error=str(error))

    def _claim_share(self, member: Member) -> None:
        """Take what is free, up to one's share of all that there is."""
        run = self._settings.run
        name = master_name(run, "")
        ours = [Filter("active", "eq", [True]), Filter("name", "contains", [name])]
        active = max(1, len(self._db.masters.thdGetMasters(ResultSpec(ours))))
        share = -(-len(self._settings.schedulers) // active)
        held = {claim.name for claim in self._db.masters.thdGetClaims(kind=run)}
        for name in self._settings.schedulers:
            if name not in held and len(self._claims) < share:
                try:
                    claim = self._claims[name] = member.claim(run, name)
                except AlreadyClaimedError:
                    continue
                say("claimed", scheduler=name, token=claim.token)

    def _poll(self, claim: Claim, head: str) -> None:
        """Record the revision of the scheduler's branch, if it has moved."""
        objectid = self._db.state.thdGetObjectId(claim.name, self._settings.run)
        writes = self._db.state.thdGetState(objectid, WRITES, [])
        seen = Write(**writes[-1]).revision if writes else None
        if seen == head:
            return
        subjects = self._repository.new_subjects(head, seen)
        if self._pausing:
            say("about to record", scheduler=claim.name, subjects=subjects)
            self._commands.next()
            self._pausing = False
        write = Write(claim.masterid, claim.token, head, len(subjects))
        with self._db.transaction():
            # From here to the end of the transaction nobody can expire this master. If somebody
            # has, it raises, and nothing is written.
            self._db.masters.thdHoldClaim(claim)
            self._db.state.thdUpdateState(
                objectid, WRITES, lambda before: [*before, asdict(write)], []
            )
        say("found", scheduler=claim.name, token=claim.token, subjects=subjects)


def _say_expired(masters: list[MasterModel]) -> None:
    say("expired", masterids=[one.id for one in masters])


def main() -> int:
    # In a group of its own a master is spared the terminal's interrupts, which are for the story
    # to be told; and it is not left stopped for ever if that comes to a sudden end.
    os.setpgid(0, 0)
    # What its library would log, the story tells.
    logging.getLogger("statedb").addHandler(logging.NullHandler())
    commands = Commands()
    settings = commands.next()
    if settings in (None, "leave"):
        return 0
    told = Settings(**json.loads(settings))
    try:
        with connect(told.url, pool_size=1, timeout=told.timeout) as db:
            Master(db, told, commands).work()
    except Error as error:
        say("failed", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
