"""Model: what db.state and db.masters promise, as dictionaries.

A method has the name of the operation and takes its arguments. It changes the dictionaries, and
returns what the operation is to return, or raises Refusal and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from faults.legality import Refusal, as_json, call, of_id, of_name, of_value, refuse
from faults.selection import select
from statedb import (
    NO_DEFAULT,
    AlreadyClaimedError,
    Claim,
    ClaimLostError,
    InvalidSettingError,
    InvalidTypeError,
    MasterActiveError,
    MasterLostError,
    MasterModel,
    NoSuchObjectError,
    NoSuchStateError,
    ObjectModel,
    ResultSpec,
    UnusableConnectionError,
)

OBJECT_FIELDS: Final = {"id": int, "name": str, "class_name": str}
MASTER_FIELDS: Final = {"id": int, "name": str, "active": bool, "last_active": datetime}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
SECOND: Final = 1_000_000
_LONG_AGO: Final = 365 * 24 * 3600 * SECOND


@dataclass(frozen=True)
class Master:
    """A master's row. Without ``last_active`` it was seen just now: when is to be looked up."""

    id: int
    name: str
    active: bool = False
    incarnation: int = 0
    heartbeats: int = 0
    last_active: int | None = None
    expire_after: int | None = None
    due: int | None = None

    @property
    def shown(self) -> MasterModel:
        assert self.last_active is not None
        moment = EPOCH + timedelta(microseconds=self.last_active)
        return MasterModel(self.id, self.name, self.active, moment)

    @property
    def is_new(self) -> bool:
        """Whether the database's clock has yet to say when it was last seen."""
        return self.last_active is None

    def activated(self, last_active: int | None) -> Master:
        return replace(
            self,
            active=True,
            incarnation=self.incarnation + (not self.active),
            heartbeats=self.heartbeats + 1,
            last_active=last_active,
            due=self.expire_after,
        )

    def is_overdue(self, silence: float | None) -> bool:
        """Nobody is silent for ten minutes here, unless since the first days of 1970."""
        if self.due is not None:
            return self.due < _LONG_AGO
        return self.expire_after is None and (self.last_active == 0 or silence == 0)


@dataclass
class Model:
    """What the tables hold, and what they have held."""

    objects: dict[int, tuple[str, str]] = field(default_factory=dict)
    values: dict[int, dict[str, Any]] = field(default_factory=dict)
    masters: dict[int, Master] = field(default_factory=dict)
    #: Who holds a thing of a kind, None where nobody does, and the token of it.
    claims: dict[tuple[str, str], tuple[int | None, int]] = field(default_factory=dict)
    #: All ids that objects and masters ever had.
    object_ids: set[int] = field(default_factory=set)
    master_ids: set[int] = field(default_factory=set)
    #: Whether a transaction is open in which a claim can be held.
    in_transaction: bool = False

    def copy(self) -> Model:
        return replace(
            self,
            objects=dict(self.objects),
            values={objectid: dict(values) for objectid, values in self.values.items()},
            masters=dict(self.masters),
            claims=dict(self.claims),
            object_ids=set(self.object_ids),
            master_ids=set(self.master_ids),
        )

    # --- Objects and their values ---

    def get_object_id(self, name: str, class_name: str) -> int | None:
        """None where one is to be added."""
        refuse(of_name(name), of_name(class_name))
        return next((key for key, pair in self.objects.items() if pair == (name, class_name)), None)

    def add_object(self, objectid: int, name: str, class_name: str) -> None:
        assert objectid not in self.object_ids, f"the object id {objectid} was used before"
        self.object_ids.add(objectid)
        self.objects[objectid] = name, class_name
        self.values[objectid] = {}

    def get_objects(self, spec: ResultSpec | None = None) -> list[ObjectModel]:
        rows = [ObjectModel(key, *pair) for key, pair in sorted(self.objects.items())]
        return select(rows, OBJECT_FIELDS, spec)

    def delete_object(self, objectid: int) -> bool:
        refuse(of_id(objectid))
        self.values.pop(objectid, None)
        return self.objects.pop(objectid, None) is not None

    def get_state(self, objectid: int, name: str, default: Any = NO_DEFAULT) -> Any:
        refuse(of_id(objectid), of_name(name))
        found = self.values.get(objectid, {}).get(name, default)
        if found is NO_DEFAULT:
            raise Refusal(NoSuchStateError)
        return found

    def set_state(self, objectid: int, name: str, value: Any) -> Any:
        refuse(of_id(objectid), of_name(name), of_value(value))
        self._values(objectid)[name] = as_json(value)
        return as_json(value)

    def atomic_create_state(self, objectid: int, name: str, callback: Callable[[], Any]) -> Any:
        refuse(of_id(objectid), of_name(name))
        found = self.values.get(objectid, {})
        return found[name] if name in found else self.set_state(objectid, name, call(callback))

    def delete_state(self, objectid: int, name: str) -> bool:
        refuse(of_id(objectid), of_name(name))
        return self.values.get(objectid, {}).pop(name, NO_DEFAULT) is not NO_DEFAULT

    def update_state(
        self, objectid: int, name: str, callback: Callable[[Any], Any], default: Any = NO_DEFAULT
    ) -> Any:
        new = call(callback, self.get_state(objectid, name, default))
        return self.set_state(objectid, name, new)

    def get_states(self, objectid: int, names: Iterable[str] | None = None) -> dict[str, Any]:
        if isinstance(names, str):
            raise Refusal(InvalidTypeError)
        refuse(of_id(objectid), *map(of_name, names or ()))
        found = self.values.get(objectid, {})
        return {name: found[name] for name in found if names is None or name in names}

    def set_states(self, objectid: int, values: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(values, Mapping):
            raise Refusal(InvalidTypeError)
        refuse(of_id(objectid), *map(of_name, values), *map(of_value, values.values()))
        written = {name: as_json(value) for name, value in values.items()}
        self._values(objectid).update(written)
        return written

    def _values(self, objectid: int) -> dict[str, Any]:
        if objectid not in self.objects:
            raise Refusal(NoSuchObjectError)
        return self.values[objectid]

    # --- Masters ---

    def find_master_id(self, name: str) -> int | None:
        """None where one is to be added."""
        refuse(of_name(name))
        return next((one.id for one in self.masters.values() if one.name == name), None)

    def add_master(self, masterid: int, name: str) -> None:
        assert masterid not in self.master_ids, f"the master id {masterid} was used before"
        self.master_ids.add(masterid)
        self.masters[masterid] = Master(masterid, name)

    def get_master(self, masterid: int) -> MasterModel | None:
        refuse(of_id(masterid))
        return self.masters[masterid].shown if masterid in self.masters else None

    def get_masters(self, spec: ResultSpec | None = None) -> list[MasterModel]:
        rows = [one.shown for _, one in sorted(self.masters.items())]
        return select(rows, MASTER_FIELDS, spec)

    def set_master_state(self, masterid: int, active: bool) -> bool:
        refuse(of_id(masterid), [] if isinstance(active, bool) else [InvalidTypeError])
        if masterid not in self.masters:
            return False
        changed = self.masters[masterid].active != active
        if active:
            self.masters[masterid] = self.masters[masterid].activated(None)
        elif changed:
            self.deactivate(masterid)
        return changed

    def deactivate(self, masterid: int) -> None:
        self.masters[masterid] = replace(self.masters[masterid], active=False, due=None)
        for thing, (owner, token) in self.claims.items():
            if owner == masterid:
                self.claims[thing] = None, token

    def forget_master(self, masterid: int) -> bool:
        refuse(of_id(masterid))
        if masterid in self.masters and self.masters[masterid].active:
            raise Refusal(MasterActiveError)
        return self.masters.pop(masterid, None) is not None

    def set_all_masters_active_long_time_ago(self) -> None:
        for masterid, one in self.masters.items():
            self.masters[masterid] = one.activated(0)

    def silence(self, masterid: int) -> None:
        """As the onlooker does."""
        if masterid in self.masters and self.masters[masterid].active:
            self.masters[masterid] = replace(self.masters[masterid], last_active=0, due=0)

    def expire_masters(self, expire_after: float | None = None) -> list[MasterModel]:
        if expire_after is not None:
            if isinstance(expire_after, bool) or not isinstance(expire_after, (int, float)):
                raise Refusal(InvalidTypeError)
            if not 0 <= expire_after <= 10**9:
                raise Refusal(InvalidSettingError)
        expired = [
            one
            for _, one in sorted(self.masters.items())
            if one.active and one.is_overdue(expire_after)
        ]
        for one in expired:
            self.deactivate(one.id)
        return [self.masters[one.id].shown for one in expired]

    def join(self, masterid: int, expire_after: float) -> int:
        """A new incarnation of a master that is there; the first check-in has been made."""
        self.deactivate(masterid)
        one = self.masters[masterid]
        self.masters[masterid] = replace(
            one,
            active=True,
            incarnation=one.incarnation + 1,
            heartbeats=one.heartbeats + 2,
            last_active=None,
            expire_after=round(expire_after * SECOND),
            due=round(expire_after * SECOND),
        )
        return one.incarnation + 1

    def leave(self, masterid: int, incarnation: int) -> None:
        if self._has_place(masterid, incarnation):
            self.deactivate(masterid)

    def _has_place(self, masterid: int, incarnation: int | None) -> bool:
        one = self.masters.get(masterid)
        return one is not None and one.active and incarnation in (None, one.incarnation)

    # --- Claims ---

    def claim(
        self, masterid: int, kind: str, name: str, *, incarnation: int | None = None
    ) -> Claim:
        refuse(of_id(masterid), of_name(kind), of_name(name))
        if not self._has_place(masterid, incarnation):
            raise Refusal(MasterLostError)
        owner, token = self.claims.get((kind, name), (None, 0))
        if owner not in (None, masterid):
            raise Refusal(AlreadyClaimedError)
        token += owner is None
        self.claims[kind, name] = masterid, token
        return Claim(kind, name, masterid, token)

    def release(self, masterid: int, kind: str, name: str) -> bool:
        refuse(of_id(masterid), of_name(kind), of_name(name))
        owner, token = self.claims.get((kind, name), (None, 0))
        if owner != masterid or owner is None:
            return False
        self.claims[kind, name] = None, token
        return True

    def release_claim(self, claim: Claim) -> bool:
        return self._holds(claim) and self.release(claim.masterid, claim.kind, claim.name)

    def get_claims(self, masterid: int | None = None, kind: str | None = None) -> list[Claim]:
        refuse([] if masterid is None else of_id(masterid), [] if kind is None else of_name(kind))
        found = [
            Claim(*thing, owner, token)
            for thing, (owner, token) in self.claims.items()
            if owner is not None and masterid in (None, owner) and kind in (None, thing[0])
        ]
        return sorted(found, key=lambda one: (one.kind.encode(), one.name.encode()))

    def hold_claim(self, claim: Claim) -> None:
        if not isinstance(claim, Claim):
            raise Refusal(InvalidTypeError)
        if not self.in_transaction:
            raise Refusal(UnusableConnectionError)
        if not self._holds(claim):
            raise Refusal(ClaimLostError)

    def _holds(self, claim: Claim) -> bool:
        return self.claims.get((claim.kind, claim.name)) == (claim.masterid, claim.token)
