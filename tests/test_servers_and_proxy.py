"""That the servers and the proxy, on which other tests rely, do what those believe."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import chosen_engines
from proxy import Proxy
from servers import MariaDB, MySQL, PostgreSQL, Server, ServerFailed

SERVERS: tuple[type[PostgreSQL | MariaDB], ...] = (PostgreSQL, MariaDB, MySQL)
CHOSEN = {engine.name for engine in chosen_engines()}
KINDS = [kind for kind in SERVERS if kind.name in CHOSEN]

# Where no server is under test there is nothing here to collect, and none is started.
__test__ = bool(KINDS)

needs_postgresql = pytest.mark.skipif(
    PostgreSQL not in KINDS, reason="PostgreSQL is not among the engines under test"
)


def connect(server: Server, port: int | None = None, *, timeout: int = 10) -> Any:
    if server.protocol == "postgresql":
        import psycopg

        address = server.url("proxied", port) + f"?sslmode=disable&connect_timeout={timeout}"
        return psycopg.connect(address, autocommit=True)
    import pymysql

    return pymysql.connect(
        host="127.0.0.1",
        port=port or server.port,
        user="root",
        database="proxied",
        ssl_disabled=True,
        autocommit=True,
        connect_timeout=timeout,
        read_timeout=timeout,
        write_timeout=timeout,
        client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS,
    )


def run(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def lost() -> Any:
    """Expects the error of a lost or refused connection, whichever the driver."""
    import psycopg
    import pymysql

    errors = (psycopg.OperationalError, pymysql.OperationalError, pymysql.InterfaceError)
    return pytest.raises(errors)


def stored(server: Server) -> list[int]:
    """What is in the table, by a connection that avoids the proxy."""
    with contextlib.closing(connect(server)) as connection:
        return [row[0] for row in run(connection, "SELECT number FROM numbers ORDER BY number")]


def until(true: Any) -> bool:
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(true())


def processes_that_name(directory: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_text("utf-8"))
    return [command for command in found if str(directory) in command]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: str(kind.name))
def pg_or_maria_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with request.param() as server:
        server.create_database("proxied")
        yield server


@pytest.fixture
def numbers_server(pg_or_maria_server: Server) -> Server:
    with contextlib.closing(connect(pg_or_maria_server)) as connection:
        run(connection, "DROP TABLE IF EXISTS numbers")
        run(connection, "CREATE TABLE numbers (number integer PRIMARY KEY)")
    return pg_or_maria_server


def _proxy_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("proxy-")]


@pytest.fixture
def numbers_proxy(numbers_server: Server) -> Iterator[Proxy]:
    with Proxy(numbers_server.port, numbers_server.protocol) as proxy:
        yield proxy
    assert until(lambda: not _proxy_threads())


@pytest.fixture
def proxied(numbers_server: Server, numbers_proxy: Proxy) -> Iterator[Any]:
    connection = connect(numbers_server, numbers_proxy.port)
    numbers_proxy.forget()
    yield connection
    with contextlib.suppress(Exception):
        connection.close()


def test_a_second_server_runs_beside_the_first_and_is_gone_after_stop(
    pg_or_maria_server: Server,
) -> None:
    with type(pg_or_maria_server)() as second:
        second.create_database("proxied")
        connect(second).close()
        directory = second.directory
        assert processes_that_name(directory)
    connect(pg_or_maria_server).close()
    assert not processes_that_name(directory)
    assert not directory.exists()


def test_a_killed_server_recovers_what_it_acknowledged(pg_or_maria_server: Server) -> None:
    with type(pg_or_maria_server)(durable=True) as server:
        server.create_database("proxied")
        connection = connect(server)
        run(connection, "CREATE TABLE numbers (number integer PRIMARY KEY)")
        run(connection, "INSERT INTO numbers VALUES (1)")
        server.kill()
        with lost():
            run(connection, "SELECT 1")
        with lost():
            connect(server)
        server.start()
        assert stored(server) == [1]
        server.restart()
        assert stored(server) == [1]
        connection.close()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, of util-linux")
def test_a_server_dies_with_a_test_run_that_is_killed(pg_or_maria_server: Server) -> None:
    kind = type(pg_or_maria_server).__name__
    script = (
        f"import servers as s; a = s.{kind}(); a.start(); print(a.directory, flush=True); input()"
    )
    command = [sys.executable, "-c", script]
    here = Path(__file__).parent
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=here, stdin=pipe, stdout=pipe, encoding="utf-8") as test_run:
        assert test_run.stdout is not None
        directory = Path(test_run.stdout.readline().strip())
        assert processes_that_name(directory)
        test_run.kill()
    assert until(lambda: not processes_that_name(directory))
    shutil.rmtree(directory)


def test_a_server_that_does_not_start_shows_its_log_and_leaves_nothing(
    pg_or_maria_server: Server,
) -> None:
    server = type(pg_or_maria_server)(options=["--no-such-option=1"])
    with pytest.raises(ServerFailed, match=r"no.such.option"):
        server.start()
    with pytest.raises(RuntimeError, match="before start"):
        assert server.directory


def test_a_paused_server_answers_nobody_until_it_is_resumed(pg_or_maria_server: Server) -> None:
    connection = connect(pg_or_maria_server)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(run(connection, "SELECT 1")))
    pg_or_maria_server.pause()
    try:
        asking.start()
        asking.join(0.3)
        assert not answers
        with lost():
            connect(pg_or_maria_server, timeout=2)
    finally:
        pg_or_maria_server.resume()
    asking.join()
    assert answers == [[(1,)]]
    connection.close()


def test_a_database_is_dropped_while_a_transaction_uses_it(pg_or_maria_server: Server) -> None:
    pg_or_maria_server.drop_database("proxied")
    pg_or_maria_server.create_database("proxied")
    connection = connect(pg_or_maria_server)
    run(connection, "CREATE TABLE numbers (number integer PRIMARY KEY)")
    run(connection, "BEGIN")
    run(connection, "INSERT INTO numbers VALUES (1)")
    pg_or_maria_server.drop_database("proxied")
    with lost():
        run(connection, "SELECT 1")
    connection.close()
    pg_or_maria_server.create_database("proxied")


def test_four_hundred_connections_fit_through_the_proxy(
    numbers_server: Server, numbers_proxy: Proxy
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(contextlib.closing(connect(numbers_server, numbers_proxy.port)))
        assert numbers_proxy.connections == 400
    assert until(lambda: numbers_proxy.connections == 0)


def test_the_proxy_lists_each_statement_once_in_order(numbers_proxy: Proxy, proxied: Any) -> None:
    statements = ["INSERT INTO numbers VALUES (1)", *["SELECT number FROM numbers"] * 8, "BEGIN"]
    for statement in statements:
        run(proxied, statement)
    assert numbers_proxy.statements == statements
    numbers_proxy.forget()
    assert numbers_proxy.statements == []


@needs_postgresql
def test_the_proxy_lists_prepared_and_pipelined_statements_once_for_each_execution() -> None:
    with PostgreSQL() as server, Proxy(server.port, "postgresql") as proxy:
        server.create_database("proxied")
        with contextlib.closing(connect(server, proxy.port)) as connection:
            for number in range(20):  # psycopg prepares what it has seen five times
                connection.execute("SELECT %s::int", (number,))
            assert proxy.statements == ["SELECT $1::int"] * 20
            proxy.forget()
            with connection.pipeline():
                for number in range(20):
                    connection.execute("SELECT %s::int + 1", (number,))
            assert proxy.statements == ["SELECT $1::int + 1"] * 20


def test_a_statement_whose_requests_end_before_it_is_not_carried_out(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    run(proxied, "BEGIN")
    run(proxied, "INSERT INTO numbers VALUES (1)")
    numbers_proxy.end_requests_before("commit")
    with lost():
        run(proxied, "COMMIT")
    assert until(lambda: numbers_proxy.connections == 0)
    assert stored(numbers_server) == []


def test_a_statement_whose_answers_end_before_it_is_carried_out(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    numbers_proxy.end_answers_before(lambda statement: statement.startswith("INSERT"))
    run(proxied, "SELECT 1")
    with lost():
        run(proxied, "INSERT INTO numbers VALUES (1)")
    assert until(lambda: stored(numbers_server) == [1])


def test_who_refuses_new_connections_keeps_those_that_there_are(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    numbers_proxy.refuse_new()
    with lost():
        connect(numbers_server, numbers_proxy.port)
    assert run(proxied, "SELECT 1") == [(1,)]
    numbers_proxy.listen()
    connect(numbers_server, numbers_proxy.port).close()


def test_a_statement_cut_before_is_not_carried_out(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    numbers_proxy.cut_before("insert into")
    run(proxied, "SELECT 1")
    with lost():
        run(proxied, "INSERT INTO numbers VALUES (1)")
    assert stored(numbers_server) == []
    assert until(lambda: numbers_proxy.connections == 0)
    with contextlib.closing(connect(numbers_server, numbers_proxy.port)) as connection:
        run(connection, "INSERT INTO numbers VALUES (2)")
    assert stored(numbers_server) == [2]


def test_a_statement_cut_after_is_carried_out_and_its_client_is_not_told(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    numbers_proxy.cut_after(re.compile(r"^COMMIT$"), times=2)
    for number in (1, 2):
        with contextlib.closing(connect(numbers_server, numbers_proxy.port)) as connection:
            run(connection, "BEGIN")
            run(connection, f"INSERT INTO numbers VALUES ({number})")
            with lost():
                run(connection, "COMMIT")
            assert stored(numbers_server) == list(range(1, number + 1))
    run(proxied, "BEGIN")
    run(proxied, "INSERT INTO numbers VALUES (3)")
    run(proxied, "COMMIT")
    assert stored(numbers_server) == [1, 2, 3]


def test_cut_after_waits_for_the_end_of_a_long_answer(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    run(proxied, f"INSERT INTO numbers VALUES {', '.join(f'({n})' for n in range(1000))}")
    join = "SELECT a.number FROM numbers a CROSS JOIN numbers b WHERE b.number < 200"
    numbers_proxy.cut_after("cross join")
    with lost():
        run(proxied, f"{join}; INSERT INTO numbers VALUES (-1)")
    assert stored(numbers_server)[0] == -1


@needs_postgresql
def test_cut_after_within_a_pipeline_lets_earlier_answers_through() -> None:
    import psycopg

    with PostgreSQL() as server, Proxy(server.port, "postgresql") as proxy:
        server.create_database("proxied")
        with contextlib.closing(connect(server)) as connection:
            run(connection, "CREATE TABLE numbers (number integer PRIMARY KEY)")
        proxy.cut_after("VALUES (2)")
        connection = connect(server, proxy.port)
        with lost(), connection.pipeline() as pipeline:
            first = connection.execute("INSERT INTO numbers VALUES (1) RETURNING number")
            pipeline.sync()
            assert first.fetchone() == (1,)
            connection.execute("INSERT INTO numbers VALUES (2)")
        assert stored(server) == [1, 2]
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.UNKNOWN


def test_a_held_statement_waits_until_it_is_released(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    held = numbers_proxy.hold_before("INSERT")
    insert = "INSERT INTO numbers VALUES (1)"
    inserting = threading.Thread(target=lambda: run(proxied, insert))
    inserting.start()
    assert held.arrived.wait(5)
    assert stored(numbers_server) == []
    held.release()
    inserting.join()
    assert stored(numbers_server) == [1]


def test_a_stalled_proxy_says_nothing_until_it_is_resumed(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    numbers_proxy.stall()
    inserting = threading.Thread(target=lambda: run(proxied, "INSERT INTO numbers VALUES (1)"))
    inserting.start()
    inserting.join(0.2)
    assert inserting.is_alive()
    assert stored(numbers_server) == []
    with lost():
        connect(numbers_server, numbers_proxy.port, timeout=2)
    numbers_proxy.resume()
    inserting.join()
    assert stored(numbers_server) == [1]


def test_a_refusing_proxy_cuts_and_refuses_until_it_listens_again(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    numbers_proxy.refuse()
    with lost():
        run(proxied, "SELECT 1")
    with lost() as refused:
        connect(numbers_server, numbers_proxy.port)
    assert "refused" in str(refused.value)
    numbers_proxy.listen()
    with contextlib.closing(connect(numbers_server, numbers_proxy.port)) as connection:
        assert run(connection, "SELECT 1") == [(1,)]
        numbers_proxy.cut_all()
        with lost():
            run(connection, "SELECT 1")


def test_a_held_or_stalled_connection_does_not_outlive_the_proxy(
    numbers_server: Server, numbers_proxy: Proxy, proxied: Any
) -> None:
    held = numbers_proxy.hold_before("INSERT")

    def insert() -> None:
        with lost():
            run(proxied, "INSERT INTO numbers VALUES (1)")

    inserting = threading.Thread(target=insert)
    inserting.start()
    assert held.arrived.wait(5)
    numbers_proxy.stall()
    numbers_proxy.close()
    inserting.join()
    assert stored(numbers_server) == []


def test_the_delay_is_added_each_way(numbers_proxy: Proxy, proxied: Any) -> None:
    def best() -> float:
        # The least: whatever else the machine does makes some of them longer.
        times = []
        for _ in range(100):
            begun = time.perf_counter()
            run(proxied, "SELECT 1")
            times.append(time.perf_counter() - begun)
        return min(times)

    undelayed = best()
    numbers_proxy.delay = 0.01
    assert 0.018 < best() - undelayed < 0.03
    numbers_proxy.delay = 0.0
    assert best() < undelayed + 0.01


@needs_postgresql
def test_the_delay_does_not_queue_up_what_is_pipelined() -> None:
    with PostgreSQL() as server, Proxy(server.port, "postgresql") as proxy:
        server.create_database("proxied")
        with contextlib.closing(connect(server, proxy.port)) as connection:
            proxy.delay = 0.05
            begun = time.perf_counter()
            with connection.pipeline():
                for number in range(40):
                    connection.execute("SELECT %s::int", (number,))
                    time.sleep(0.001)
            assert time.perf_counter() - begun < 0.5


@needs_postgresql
def test_a_client_that_asks_for_encryption_is_seen_all_the_same() -> None:
    import psycopg

    with PostgreSQL() as server, Proxy(server.port, "postgresql") as proxy:
        address = server.url("postgres", proxy.port) + "?sslmode=prefer"
        with contextlib.closing(psycopg.connect(address, autocommit=True)) as connection:
            connection.execute("SELECT 1")
            assert proxy.statements == ["SELECT 1"]
