"""Hostile: what nobody in his right mind would give to a library, drawn from a seed."""

from __future__ import annotations

import enum
import json
import random
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NoReturn

from statedb import Filter, ResultSpec

#: Stands for a password: it must be shown nowhere.
MARK = "h1dden"

_NAUGHTY = [
    *("'", '"', "''", '"x"', "`", "\\", "\\'", "\\\\", "\\0", "%", "%%", "%s", "%(name)s", "%(x)b"),
    *("?", ":name", ":1", "$1", "$$", "{}", "{0}", "{0.__class__}", "{name!r}", "%n%n", "${x}"),
    *("'; DROP TABLE statedb_states; --", '"; DELETE FROM statedb_masters; #', "' OR 1=1 --"),
    *(
        "') ON CONFLICT DO NOTHING; --",
        "1; COMMIT;",
        "/*filters*/",
        "/*each*/ x /*end*/",
        "/*now*/",
    ),
    *("/*!50000 SELECT SLEEP(9) */", "UNHEX('00')", "x'00'", "U&'\\0041'", "E'\\x00'", "\x1a"),
    *("NULL", "null", "NaN", "-1", "1e999", "0x0", "true", "[]", "{", '{"a":', "[" * 50, "\ufeff"),
    *("\0", "a\0b", "\x01\x7f", "\r\n", "\t", " ", "  ", "\u2028", "\u202e", "\u200b", "\x85"),
    *("\ud800", "\udfff\ud800", "\udc80", "\U0010ffff", "\uffff", "\u0301", "\u0130", "\u1e9e"),
    *("\U0001f468\u200d\U0001f469", "a" * 101, "\u00e9" * 500, "../../etc/passwd", "-- name: x"),
    *(
        "https://u:p@h/?q#f",
        "<script>",
        "\x1b[31m",
        "a\u0308",
        "\u00e4",
        "statedb_0",
        "; ROLLBACK;",
    ),
]
_LONG = ["x" * 65_536, "x" * 65_537, "\u00e9" * 32_768, "'" * 65_536, "\\" * 65_537, "x" * 300_000]


# --- Texts that are more than they seem ---


class Plain(str):
    """A str by another name."""

    __slots__ = ()


class Loud(str):
    """A str that cannot be shown."""

    __slots__ = ()

    def __str__(self) -> NoReturn:
        raise RuntimeError("shown")

    def __repr__(self) -> NoReturn:
        raise RuntimeError("shown")

    def __format__(self, _: str) -> NoReturn:
        raise RuntimeError("shown")


class Unhashable(str):
    """A str that can be no key."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


class Same(str):
    """A str that says of every other that it is the same."""

    __slots__ = ()

    def __eq__(self, _: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


class Incomparable(str):
    """A str that raises where it is compared."""

    __slots__ = ()

    def __eq__(self, _: object) -> NoReturn:
        raise RuntimeError("compared")

    def __hash__(self) -> int:
        return str.__hash__(self)


class Lying(str):
    """A str that says that its characters are others."""

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"'; --\0"

    def __len__(self) -> int:
        return 0


class Colour(str, enum.Enum):
    RED = "red"


_KINDS: list[type[str]] = [Plain, Loud, Unhashable, Same, Incomparable, Lying]


class Hostile(random.Random):
    """Draws it."""

    def text(self) -> str:
        """Any text: of fragments, of random characters, of random bytes, or very long."""
        how = self.random()
        if how < 0.5:
            return "".join(self.choice(_NAUGHTY) for _ in range(self.choice((1, 1, 2, 3))))
        if how < 0.75:
            most = self.choice((0x20, 0x7F, 0x100, 0x3000, 0x110000))
            return "".join(chr(self.randrange(most)) for _ in range(self.randrange(12)))
        if how < 0.97:
            return self.randbytes(self.randrange(40)).decode("utf-8", "surrogateescape")
        return self.choice(_LONG) + self.choice(("", "a", "\0", "\ud800"))

    def name(self) -> Any:
        """A text, what seems to be one, or something else."""
        how = self.random()
        if how < 0.75:
            return self.text()
        if how < 0.92:
            return self._odd_text()
        odd = [None, 0, 1.5, True, b"a", bytearray(b"a"), [], ["a"], {}, object(), Colour.RED, str]
        return self.choice(odd)

    # --- URLs ---

    def url(self) -> str:
        """A URL with a password in it, well-formed or not."""
        kind = self.random()
        if kind < 0.05:
            return f"sqlite:///{self.choice(('', '/'))}{self.text()}"
        junk = self._junk
        scheme = self.choice(("postgresql", "postgres", "mysql", "mariadb", "MySQL", "Postgresql"))
        secret = f"{junk()}{MARK}{junk()}"
        if kind < 0.5:
            sound = ["h", "h:1", "h1,h2", "h1:1,h2:2", "[::1]:3", ""]
            place = self.choice((*sound * 2, "h:x", "h:99999", "h:" + "9" * 5_000, "[::1", "h:-1"))
            query = self.choice(("", "", "", "?", "?x=1", "?ssl_ca=x", "?port=1,2", f"?{junk()}=1"))
            path = self.choice(("/d", "/d", "/d", "", "/", "/a/b", f"/{junk()}"))
            return f"{scheme}://u:{secret}@{place}{path}{query}"
        if kind < 0.8:
            name = self.choice(("password", "sslpassword", "ssl_key_password", "PASSWORD", "pass"))
            mark = self.choice((MARK, secret.replace("&", "").replace("#", "")))
            return f"{scheme}://u@h{self.choice(('', ':5', ':y'))}/d?{name}={mark}{junk()}"
        if kind < 0.9:
            other = self.choice(
                ("sqlite", "oracle", "", "postgresql+psycopg", "mysql:", "http", junk())
            )
            return f"{other}{self.choice(('://', ':', '//'))}u:{secret}@h/d"
        # Cut short, as by a wrong copy.
        return f"{scheme}://u:{MARK}"

    def _junk(self) -> str:
        pieces = ["", "", "", "x", "@", "/", "?", "#", ":", "%", "%zz", "%40", "%00", "&", "=", ","]
        pieces += ["[", "]", " ", "\\", "'", ";", "\0", "\ud800", "\u00fc", "%ff", "//", "@@", "\n"]
        return "".join(self.choice(pieces) for _ in range(self.choice((0, 0, 0, 1, 2))))

    # --- Values ---

    def value(self, depth: int = 0) -> Any:
        """Anything that Python can nest."""
        how = self.random()
        if how < 0.01 and not depth:
            return self.choice(_BOMBS)()
        if how < 0.4 or depth > 4:
            return self._leaf()
        inner = [self.value(depth + 1) for _ in range(self.randrange(4))]
        if how < 0.6:
            return self.choice((list, tuple, list))(inner)
        keys = [self._key() for _ in inner]
        try:
            found = dict(zip(keys, inner, strict=True))
        except (TypeError, RuntimeError):  # a key that is none
            return inner
        return self.choice((dict, dict, dict, OddDict, EndlessDict, EmptyDict))(found)

    def _key(self) -> Any:
        odd = [1, "1", True, "true", None, "null", 1.0, "1.0", float("nan"), (1,), b"a", 10**30]
        return self.choice((self.text, lambda: self.choice(odd)))()

    def _leaf(self) -> Any:
        how = self.randrange(5)
        if how < 2:
            return self.text() if how else self._odd_text()
        if how < 4:
            return self.randrange(-(2**70), 2**70) if how == 2 else self.gauss(0, 1e300)
        make = self.choice(_ODD_LEAVES)
        return make()

    def _odd_text(self) -> str:
        return self.choice(_KINDS)(self.text())

    # --- Queries ---

    def spec(self, fields: list[str]) -> Any:
        """A ResultSpec, mostly; what is in it is another matter."""
        if self.random() < 0.02:
            return self.choice(({}, [], "id", 1, Filter("id", "eq", [1])))
        filters: Any = [self._filter(fields) for _ in range(self.choice((0, 1, 1, 1, 2)))]
        order: Any = [self._field(fields, ("", "-")) for _ in range(self.choice((0, 0, 1, 2)))]
        if self.random() < 0.03:
            filters = self.choice(
                (None, "id", 1, iter(filters), {}, b"", [None], ["id"], tuple(filters))
            )
        if self.random() < 0.03:
            order = self.choice((None, "id", "-id", 1, {}, b"id", [None], [b"id"], tuple(order)))
        return ResultSpec(filters, order, self._number(), self._number())

    def _filter(self, fields: list[str]) -> Filter:
        operators = ["eq", "ne", "lt", "le", "gt", "ge", "in", "notin", "contains"]
        operator: Any = self.choice((*operators * 3, "like", "=", "", "EQ", None, [], self.text()))
        field = self._field(fields, ("",))
        values: Any = [self._of_field(field) for _ in range(self.choice((0, 1, 1, 1, 1, 2, 40)))]
        if self.random() < 0.05:
            values = self.choice((None, "a", b"a", 1, {}, {1}, iter(values), tuple(values)))
        return Filter(field, operator, values)

    def _field(self, fields: list[str], signs: tuple[str, ...]) -> Any:
        legal = self.choice(signs) + self.choice(fields)
        odd: Any = (
            "",
            "-",
            "--id",
            "id; DROP TABLE statedb_masters",
            "1",
            "name_hash",
            None,
            [],
            1,
        )
        return legal if self.random() < 0.95 else self.choice((*odd, self.text(), f"{legal} DESC"))

    def _of_field(self, field: Any) -> Any:
        if self.random() < 0.05:
            return self.choice((None, b"a", 1.5, [], {}, "1", 1, True, object(), NAIVE, Loud("x")))
        if field == "active":
            return self.random() < 0.5
        if field in ("id", "masterid"):
            return self.choice((0, 1, 2, self.randrange(50), -1, 2**63, 2**64, -(10**50), 10**5000))
        if field == "last_active":
            return self.choice(_MOMENTS)
        return self.text()

    def _number(self) -> Any:
        odd: Any = (
            0,
            1,
            2,
            50,
            2**31,
            2**63,
            10**50,
            -1,
            True,
            1.0,
            "1",
            b"1",
            [],
            "1; DROP TABLE x",
        )
        return None if self.random() < 0.8 else self.choice(odd)


# --- Values that resist ---


class Refusing:
    """Raises whatever is asked of it."""

    def __str__(self) -> NoReturn:
        raise RuntimeError("asked")

    __repr__ = __str__

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("asked")

    def __len__(self) -> int:
        raise RuntimeError("asked")


class OddDict(dict[Any, Any]):
    """A dict that raises where it is read."""

    def items(self) -> NoReturn:
        raise RuntimeError("asked")

    def values(self) -> NoReturn:
        raise KeyError("asked")


class EndlessDict(dict[Any, Any]):
    """A dict that is another one each time."""

    def items(self) -> Any:
        return [("k", 1), ("k", 2)]


class EmptyDict(dict[Any, Any]):
    """A dict that says it holds nothing."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return False


class OddList(list[Any]):
    """A list that raises where it is read."""

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("asked")


class OddInt(int):
    """A number that cannot be shown."""

    def __repr__(self) -> NoReturn:
        raise RuntimeError("shown")

    __str__ = __repr__


class OddFloat(float):
    """A number that shows itself as another."""

    def __repr__(self) -> str:
        return "0, 1"


def _deep(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = None
    for _ in range(levels):
        value = wrap(value)
    return value


def _of_itself() -> Any:
    value: list[Any] = []
    value.append({"k": [value]})
    return value


def _many_twice(levels: int) -> Any:
    """2 ** levels values, in few objects."""
    return _deep(levels, lambda value: [value, value])


_BOMBS: list[Callable[[], Any]] = [
    lambda: _deep(200, lambda value: [value]),
    lambda: _deep(201, lambda value: {"k": value}),
    lambda: _deep(100_000, lambda value: (value,)),
    lambda: "x" * (4 * 1024 * 1024 - 2),
    lambda: '"' * (2 * 1024 * 1024),
    lambda: ["\U0001f600"] * 400_000,
    lambda: 10**4_299,
    lambda: 10**5_000,
    lambda: _many_twice(10),
    lambda: _many_twice(60),
    lambda: [[0] * 3_000] * 3_000,
    _of_itself,
    lambda: {Same("a"): 1, Plain("b"): 2},
    lambda: {str(number): number for number in range(5_000)},
]
_ODD_LEAVES: list[Callable[[], Any]] = [
    lambda: None,
    lambda: True,
    lambda: float("nan"),
    lambda: -float("inf"),
    lambda: -0.0,
    lambda: 5e-324,
    lambda: b"bytes",
    lambda: {1, 2},
    lambda: 1j,
    Refusing,
    OddList,
    lambda: OddList([1]),
    lambda: OddInt(5),
    lambda: OddFloat(5),
    lambda: Colour.RED,
    lambda: Decimal("1.5"),
    lambda: date(2020, 1, 1),
    lambda: range(3),
    lambda: (one for one in "ab"),
    lambda: NotImplemented,
    lambda: Refusing,
    object,
]
NAIVE = datetime(2020, 1, 1)  # noqa: DTZ001
_MOMENTS = [
    datetime(1970, 1, 1, tzinfo=timezone.utc),
    datetime.now(timezone.utc),
    datetime.min.replace(tzinfo=timezone.utc),
    datetime.max.replace(tzinfo=timezone.utc),
    # Out of all years, once they are UTC.
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    datetime(2020, 1, 1, tzinfo=timezone(timedelta(microseconds=1))),
]

#: What somebody else's SQL may have put in a value's place: JSON, and what is none.
STORED_JSON = [
    *("1", " [1, 2]\n", '{"a": 1, "a": 2}', '"\\ud800"', "1e5", "[" * 150 + "]" * 150),
    *('"' + "x" * 70_000 + '"', '{"%s": "%(name)s"}', "\t null"),
]
STORED_OTHERWISE = [
    *(
        "",
        " ",
        "\t\n",
        "nul",
        "null null",
        "NaN",
        "-Infinity",
        '[1, {"a": Infinity}]',
        "[1,",
        "[1,]",
    ),
    *(
        "{'a': 1}",
        '"\\uZZZZ"',
        '"\t"',
        "01",
        "9" * 5_000,
        "[" * 100_000,
        "%s ' \\ --",
        "x" * 70_000,
    ),
    *("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000),
]


# --- Dump files ---

_SOUND = [
    *({"object": name, "class": "B"} for name in ("a", "b")),
    *({"key": name, "value": value} for name, value in (("k", 1), ("l", [{"a": None}]))),
    {"master": "m", "active": True, "last_active": 0, "expire_after": 0, "incarnation": 1},
    {"claim": "c", "kind": "d", "token": 1},
]


def dump_file(hostile: Hostile) -> bytes:
    """A dump, or what is none: bytes, or lines of which some are spoilt."""
    if hostile.random() < 0.1:
        return hostile.randbytes(hostile.randrange(300))
    records: list[Any] = [hostile.choice(_SOUND[:2])]
    records += hostile.choices(_SOUND[:4], k=hostile.randrange(4))
    records += _SOUND[4:] if hostile.random() < 0.5 else []
    kinds = {"objects": "object", "values": "key", "masters": "master", "claims": "claim"}
    counts = {name: sum(kind in one for one in records) for name, kind in kinds.items()}
    mark = f"{hostile.getrandbits(128):032x}"
    header = {"statedb": "dump", "format": 1, "dump": mark, "schema": 2}
    lines = [_json(one).encode() for one in (header, *records, {"end": counts})]
    for place in hostile.sample(range(len(lines)), hostile.choice((0, 0, 1, 1, 2))):
        lines[place] = _spoilt(hostile, lines[place])
    whole = b"\n".join(lines) + b"\n"
    how = hostile.random()
    if how < 0.1:
        return whole[: hostile.randrange(len(whole))]
    if how < 0.15:
        hostile.shuffle(lines)
        return b"\n".join(lines)
    return whole


def _json(value: Any) -> str:
    return json.dumps(value)


def _spoilt(hostile: Hostile, line: bytes) -> bytes:
    how = hostile.randrange(6)
    if how == 0:
        at = hostile.randrange(len(line) + 1)
        return line[:at] + hostile.randbytes(hostile.randrange(1, 4)) + line[at:]
    if how == 1:
        return line[: hostile.randrange(len(line))]
    if how == 2:
        return hostile.text().encode("utf-8", "surrogatepass")
    members = json.loads(line)
    name = hostile.choice(list(members))
    if how == 3:
        del members[name]
    elif how == 4:
        members[hostile.text()] = members[name]
    else:
        odd: list[Any] = [
            None,
            True,
            -1,
            2**64,
            1.5,
            float("nan"),
            float("inf"),
            [],
            {},
            "",
            "x" * 70_000,
        ]
        members[name] = hostile.choice([*odd, hostile.text(), hostile.text()])
    return _json(members).encode()
