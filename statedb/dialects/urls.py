"""What the URLs of servers have in common."""

from __future__ import annotations

from statedb.errors import InvalidURLError


def check_percent_encoded(url: str, form: str) -> None:
    """Refuse a URL in which a password's own ``@`` or ``/`` would be taken for the URL's.

    What is then left of the password would be taken for a host or a database, and be shown.
    """
    # libpq ends at a NUL, and would take what stands before it for the host and port.
    if any(one == "\0" or "\ud800" <= one <= "\udfff" for one in url):
        raise InvalidURLError(f"a URL holds no NUL and no lone surrogate: {form}")
    authority, _, path = part_query(url.partition("://")[2])[0].partition("/")
    if authority.count("@") > 1 or "@" in path:
        raise InvalidURLError(f"'@' and '/' in a URL's password are written %40 and %2F: {form}")


def part_query(rest: str) -> tuple[str, str]:
    """What follows a URL's scheme, parted where its query begins.

    As libpq sees it, in whose URLs a question mark before the ``@`` is the password's.
    """
    user, at, place = rest.partition("@")
    if not at or "/" in user:
        user, at, place = "", "", rest
    place, _, query = place.partition("?")
    return user + at + place, query


def check_port(port: str, form: str) -> None:
    # Python converts no more than some thousand digits.
    is_number = port.isascii() and port.isdigit() and len(port) < 100
    if not (is_number and 0 < int(port) < 65536):
        raise InvalidURLError(f"a port in a URL is a number from 1 to 65535: {form}")
