"""A shop in one file of Django: an order and the shop's figures are written together, or neither.

Orders are rows of a model; how many were taken, and the last of them, are states of statedb's, in
the same database and by the same connection. Each run takes an order, and one that fails.
"""

from __future__ import annotations

import argparse
import urllib.parse
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.db import connection, models, transaction

import statedb
from statedb import state

ENGINES = {
    "sqlite": "sqlite3",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}


def configure(url: str) -> None:
    """What a project has in its settings.py: here its database, by the URL that statedb takes."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ENGINES:
        raise SystemExit(f"django_app: a URL begins with {'://, '.join(ENGINES)}://")
    database: dict[str, Any] = {"ENGINE": f"django.db.backends.{ENGINES[parts.scheme]}"}
    if parts.scheme == "sqlite":
        database["NAME"] = Path(urllib.parse.unquote(parts.path[1:])).absolute()
        # Else a transaction that has read may be refused when it writes, without waiting.
        database["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
    else:
        database |= {"HOST": parts.hostname, "PORT": parts.port or "", "NAME": parts.path[1:]}
        database["USER"] = urllib.parse.unquote(parts.username or "")
        database["PASSWORD"] = urllib.parse.unquote(parts.password or "")
    if ENGINES[parts.scheme] == "mysql":
        import pymysql

        pymysql.install_as_MySQLdb()  # Django imports mysqlclient's name, and takes PyMySQL for it
    field = "django.db.models.BigAutoField"
    settings.configure(DATABASES={"default": database}, DEFAULT_AUTO_FIELD=field, USE_TZ=True)
    django.setup()


def define_model() -> Any:
    """What a project has in its models.py."""

    class Order(models.Model):
        customer: Any = models.CharField(max_length=100)
        quantity: Any = models.PositiveIntegerField()

        class Meta:
            app_label = "shop"

    return Order


@transaction.atomic
def take_order(order_model: Any, shop: int, customer: str, quantity: int) -> int:
    """Keep an order and count it; how many there are now."""
    order = order_model.objects.create(customer=customer, quantity=quantity)
    state.set_state(connection, shop, "last order", {"id": order.id, "customer": customer})
    count: int = state.update_state(connection, shop, "orders", lambda count: count + 1, default=0)
    if quantity > 100:
        raise ValueError(f"there are not {quantity} in stock")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = "sqlite:///django_shop.sqlite"
    parser.add_argument("--url", default=default, help="of the database; default: %(default)s")
    url: str = parser.parse_args().url
    with statedb.connect(url) as db:
        db.upgrade()
    configure(url)
    order_model = define_model()
    if order_model._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:  # as migrate does
            editor.create_model(order_model)
    shop = state.get_object_id(connection, "django_app", "Shop")
    print(f"Ada's is order number {take_order(order_model, shop, 'Ada', 3)}.")
    try:
        take_order(order_model, shop, "Bob", 1000)
    except ValueError as error:
        print(f"Bob's is refused: {error}.")
    count, last = (state.get_state(connection, shop, name) for name in ("orders", "last order"))
    print(f"{order_model.objects.count()} rows, {count} counted, the last is {last['customer']}'s.")
    connection.close()


if __name__ == "__main__":
    main()
