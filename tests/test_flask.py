"""Direct functions in Flask: Flask-SQLAlchemy's session, and a pool of psycopg's behind a proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from conftest import ABSENT
from engines import Engine
from flask_sqlalchemy import SQLAlchemy
from test_sqlalchemy import address
from werkzeug.local import LocalProxy

from statedb import InvalidTypeError
from statedb.state import get_state, set_state, set_states

Stored = Callable[[int, str], Any]


@pytest.fixture
def shop(engine: Engine, url: str, objectid: int) -> Iterator[Any]:
    """An application that keeps orders by Flask-SQLAlchemy, and the last of them as a state."""
    db = SQLAlchemy()

    class Order(db.Model):  # type: ignore[misc, name-defined]
        __tablename__ = "shop_order"
        id = db.Column(db.Integer, primary_key=True)
        number = db.Column(db.Integer, unique=True)

    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = address(engine, url)
    db.init_app(app)

    @app.post("/order/<int:number>")
    def order(number: int) -> str:
        set_states(db.session, objectid, {"last": number, "more": 2})
        db.session.add(Order(number=number))
        db.session.flush()
        if number > 100:
            raise ValueError("there are no such orders")
        db.session.commit()
        return f"{get_state(db.session, objectid, 'last')}"

    with app.app_context():
        db.create_all()
    yield app
    with app.app_context():
        db.drop_all()
        db.engine.dispose()


def test_a_request_commits_a_state_and_a_row_or_neither(
    shop: Any, objectid: int, stored: Stored, second: Any
) -> None:
    client = shop.test_client()
    assert client.post("/order/7").text == "7"
    assert client.post("/order/101").status_code == 500
    assert client.post("/order/7").status_code == 500
    cursor = second.cursor()
    cursor.execute("SELECT number FROM shop_order")
    assert [*cursor.fetchall()] == [(7,)]
    assert stored(objectid, "last") == 7


def test_a_proxy_stands_for_the_connection_of_the_request(
    application: Callable[..., Any], objectid: int, stored: Stored
) -> None:
    app = flask.Flask("shop")
    conn: Any = LocalProxy(lambda: flask.g.setdefault("conn", application()))
    with app.app_context():
        set_state(conn, objectid, "k", 1)
        assert stored(objectid, "k") is ABSENT
        flask.g.conn.commit()
    assert stored(objectid, "k") == 1
    with app.app_context():
        flask.g.conn = 7
        with pytest.raises(InvalidTypeError, match=r"^a builtins.int, within a werkzeug\S+, is"):
            set_state(conn, objectid, "k", 2)


@pytest.fixture
def pool(engine: Engine, url: str) -> Iterator[Callable[..., Any]]:
    """Makes a pool of psycopg's, which is closed at the end."""
    if not engine.name.startswith("postgresql"):
        pytest.skip("psycopg_pool has psycopg's connections only")
    psycopg_pool = pytest.importorskip("psycopg_pool")
    made = []

    def make(**settings: Any) -> Any:
        made.append(psycopg_pool.ConnectionPool(url, min_size=1, max_size=1, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_pools_connection_commits_at_the_end_of_its_block_or_not_at_all(
    pool: Callable[..., Any], objectid: int, stored: Stored
) -> None:
    connections = pool(open=True)
    with connections.connection() as conn:
        set_states(conn, objectid, {"k": 1, "l": 2})
        assert stored(objectid, "k") is ABSENT
    assert stored(objectid, "k") == 1
    with pytest.raises(ZeroDivisionError), connections.connection() as conn:
        set_states(conn, objectid, {"k": 2, "l": 3})
        raise ZeroDivisionError
    assert stored(objectid, "k") == 1


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_pools_connection_goes_back_as_it_came(
    pool: Callable[..., Any], objectid: int, stored: Stored, autocommit: bool
) -> None:
    connections = pool(open=True, kwargs={"autocommit": autocommit})
    with connections.connection() as first:
        with first.transaction():
            set_states(first, objectid, {"k": 1, "l": 2})
            with pytest.raises(ZeroDivisionError), first.transaction():
                set_states(first, objectid, {"k": 2, "l": 3})
                raise ZeroDivisionError
        if autocommit:
            set_states(first, objectid, {"k": 1, "l": 2})
            assert stored(objectid, "k") == 1
            assert first.info.transaction_status.name == "IDLE"
    assert stored(objectid, "k") == 1
    with connections.connection() as again:
        assert again is first
        assert again.info.transaction_status.name == "IDLE"
        assert again.autocommit is autocommit
    # A connection that is not as it was is closed by the pool, or mended: counted as such.
    stats = connections.get_stats()
    assert (stats.get("returns_bad", 0), stats.get("connections_lost", 0)) == (0, 0)
