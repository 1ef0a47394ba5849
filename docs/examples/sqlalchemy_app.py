"""A shop with SQLAlchemy: an order and the shop's figures are written together, or neither.

Orders are rows of a mapped class; how many were taken, and the last of them, are states of
statedb's, in the same database and the same Session. Each run takes an order, and one that fails.
"""

from __future__ import annotations

import argparse
from typing import Any

from sqlalchemy import Engine, String, create_engine, event, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import statedb
from statedb import state

#: The driver that statedb uses too, where SQLAlchemy's default is another.
DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
}


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "shop_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(String(100))
    quantity: Mapped[int]


def connect(url: str) -> Engine:
    scheme, separator, rest = url.partition("://")
    engine = create_engine(f"{DRIVERS.get(scheme, scheme)}{separator}{rest}")
    if scheme == "sqlite":
        event.listen(engine, "connect", leave_transactions_alone)
        event.listen(engine, "begin", begin)
    return engine


# Python's driver for SQLite begins a transaction late, and none at all for a SAVEPOINT: what a
# nested transaction has written would be committed with it, whatever becomes of the one around it.
def leave_transactions_alone(raw: Any, record: Any) -> None:
    raw.isolation_level = None


def begin(conn: Any) -> None:
    # As a writer: one that has read first may be refused when it writes, without waiting.
    conn.exec_driver_sql("BEGIN IMMEDIATE")


def take_order(session: Session, shop: int, customer: str, quantity: int) -> int:
    """Keep an order and count it; how many there are now."""
    order = Order(customer=customer, quantity=quantity)
    session.add(order)
    session.flush()  # which gives it its id
    state.set_state(session, shop, "last order", {"id": order.id, "customer": customer})
    count: int = state.update_state(session, shop, "orders", lambda count: count + 1, default=0)
    if quantity > 100:
        raise ValueError(f"there are not {quantity} in stock")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = "sqlite:///sqlalchemy_shop.sqlite"
    parser.add_argument("--url", default=default, help="of the database; default: %(default)s")
    url: str = parser.parse_args().url
    with statedb.connect(url) as db:
        db.upgrade()
    engine = connect(url)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        shop = state.get_object_id(session, "sqlalchemy_app", "Shop")
        print(f"Ada's is order number {take_order(session, shop, 'Ada', 3)}.")
    try:
        with Session(engine) as session, session.begin():
            take_order(session, shop, "Bob", 1000)
    except ValueError as error:
        print(f"Bob's is refused: {error}.")
    with Session(engine) as session:
        rows = session.scalar(select(func.count()).select_from(Order))
        count, last = (state.get_state(session, shop, name) for name in ("orders", "last order"))
        print(f"{rows} rows, {count} counted, the last is {last['customer']}'s.")
    engine.dispose()


if __name__ == "__main__":
    main()
