"""Facts: what must be true of the demo's story, judged by what the database and the masters say.

Each function gives the faults that it finds, in words; none is what there should be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from statedb.claims import Claim
from statedb.errors import Error


class DidNotHappen(Error):
    """Something that the demo promises did not happen, not in time, or otherwise."""


@dataclass(frozen=True)
class Write:
    """That a master has recorded a revision of a scheduler's branch, under the token of a claim."""

    masterid: int
    token: int
    revision: str
    #: How many commits it found that were new.
    commits: int


@dataclass(frozen=True)
class Expiry:
    """That a master was seen marked inactive, and how long each scheduler's history was then."""

    masterid: int
    name: str
    writes: Mapping[str, int]


def faults_of_cluster_ids(told: Mapping[str, str], stored: str) -> list[str]:
    """By the master's name, what each was told."""
    return [
        f"{name} was told the cluster id {cluster_id}, and the database says {stored}"
        for name, cluster_id in told.items()
        if cluster_id != stored
    ]


def faults_of_reports(
    expiries: Iterable[Expiry], reports: Sequence[tuple[str, int]], *, strangers: bool
) -> list[str]:
    """``reports`` are of whom to whom: the name of who reports, and the id of who has expired.

    Each expiry is reported once; where ``strangers`` use the database too, one of them may have
    been told, and nobody of ours.
    """
    faults = []
    for expiry in expiries:
        told = [name for name, masterid in reports if masterid == expiry.masterid]
        if len(told) > 1:
            faults.append(
                f"the expiry of {expiry.name} was reported {len(told)} times, to {', '.join(told)}"
            )
        if not told and not strangers:
            faults.append(f"the expiry of {expiry.name} was reported to nobody")
    return faults


def faults_of_division(
    claims: Collection[Claim], schedulers: Collection[str], active: Collection[int]
) -> list[str]:
    """Each scheduler is held by an active master, and none holds more than its share."""
    held = {claim.name for claim in claims}
    faults = [f"nobody holds {name}" for name in schedulers if name not in held]
    faults += [
        f"{claim.name} is held by master {claim.masterid}, which is not active"
        for claim in claims
        if claim.masterid not in active
    ]
    share = -(-len(schedulers) // max(1, len(active)))
    faults += [
        f"master {masterid} holds {count} schedulers, and its share is {share}"
        for masterid, count in Counter(claim.masterid for claim in claims).items()
        if count > share
    ]
    return faults


def faults_of_tokens(before: Iterable[Claim], after: Iterable[Claim]) -> list[str]:
    """What has changed hands has a larger token, and what has not the same."""
    now = {claim.name: claim for claim in after}
    faults = []
    for old in before:
        new = now.get(old.name)
        if new is None:
            continue
        if new.masterid != old.masterid and new.token <= old.token:
            faults.append(
                f"{old.name} has changed hands, and its token has not grown: it was {old.token},"
                f" and is {new.token}"
            )
        if new.masterid == old.masterid and new.token != old.token:
            faults.append(
                f"{old.name} has not changed hands, and its token was {old.token}, and is"
                f" {new.token}"
            )
    return faults


def faults_of_writes(
    scheduler: str, writes: Sequence[Write], expiries: Iterable[Expiry]
) -> list[str]:
    """In the order in which the database has them, tokens grow, and the expired write no more."""
    faults = []
    for before, after in pairwise(writes):
        if after.token < before.token:
            faults.append(
                f"{scheduler} was written with the old token {after.token} after {before.token}"
            )
        if after.token == before.token and after.masterid != before.masterid:
            faults.append(
                f"{scheduler} was written with the token {after.token} by the masters"
                f" {before.masterid} and {after.masterid}"
            )
    faults += [
        f"{scheduler} was written by {expiry.name} after it had expired, with the token"
        f" {write.token}"
        for expiry in expiries
        for write in writes[expiry.writes.get(scheduler, 0) :]
        if write.masterid == expiry.masterid
    ]
    return faults


def faults_of_commits(scheduler: str, writes: Sequence[Write], head: str, made: int) -> list[str]:
    """Every commit was found, and none twice."""
    faults = []
    if not writes or writes[-1].revision != head:
        faults.append(f"{scheduler} was not recorded to be at its last revision {head[:7]}")
    found = sum(write.commits for write in writes)
    if found != made:
        faults.append(f"{made} commits were made for {scheduler}, and {found} found")
    return faults
