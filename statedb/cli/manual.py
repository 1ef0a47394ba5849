"""Manual: what ``--help`` says of each command, with an example."""

from __future__ import annotations

from typing import Final, NamedTuple

DESCRIPTION: Final = """\
Look at, and mend, what a database keeps for the programs that use statedb.

The database is named by --url, or by the environment variable STATEDB_URL:

  export STATEDB_URL=postgresql://user:password@host/database
  export STATEDB_URL=mysql://user:password@host/database
  export STATEDB_URL=sqlite:////var/lib/app/state.sqlite

A password in --url is seen by everybody who lists this machine's processes; one
in STATEDB_URL is not. It is shown by no command.
"""
EPILOG: Final = """\
OBJECT is an id, or NAME:CLASS, as nightly:Scheduler. MASTER is an id or a name.
`statedb COMMAND --help` explains a command. What it prints is a table on a
terminal, plain text into a pipe, and JSON with --json: a line for each thing
that is listed.

exit code: 0 it is done
           1 it failed, and stderr says in one line why and what to do
           2 the command or its URL is not understood
           3 there is no such object, value or master
           4 the server could not be reached or did not answer in time
           130 it was interrupted
           141 nobody read on
"""
URL: Final = "the database, as for statedb.connect(); STATEDB_URL unless given"
JSON: Final = "print JSON, in ASCII: a line for each thing that is listed"
TIMEOUT: Final = "how long to wait for the server, each time that it is asked (30)"
VALUE: Final = "JSON; - reads it from standard input"
OBJECT: Final = "an object: an id or NAME:CLASS"
KEY: Final = "a value's name"
AFTER: Final = "how long a silence is too long for who has no number of its own (600)"
MASTER: Final = "a master: an id or a name"


class Manual(NamedTuple):
    """A command in one sentence, what it prints, and an example."""

    summary: str
    prints: str
    example: str

    def epilog(self) -> str:
        return f"prints: {self.prints}\n\nexample:\n  {self.example}"


COMMANDS: Final = {
    "upgrade": Manual(
        "create the tables, or bring them up to date; safe to run again",
        "one sentence, or with --json the version of statedb",
        "statedb upgrade",
    ),
    "objects": Manual(
        "list objects by their ids",
        "the id, the class and the name of each",
        "statedb objects --class Scheduler --name night",
    ),
    "states": Manual(
        "list the values of an object",
        "the name and the JSON of each value",
        "statedb states nightly:Scheduler",
    ),
    "get": Manual(
        "print a value",
        "its JSON",
        "statedb get nightly:Scheduler last_run",
    ),
    "set": Manual(
        "write a value, over the one that is there",
        "its JSON",
        """statedb set nightly:Scheduler color '"green"'""",
    ),
    "delete": Manual(
        "delete a value, or an object with all its values",
        "what was deleted, or with --json: true",
        "statedb delete nightly:Scheduler color",
    ),
    "masters": Manual(
        "list the masters: who is active, how long ago each was seen, what each holds",
        "of each the id, the name, whether it is active, how long ago it was seen by the"
        " database's\nclock, after how long a silence it expires, and what it holds; with --watch"
        " again and again,\nwith --watch --json a line a round",
        "statedb masters --active --watch",
    ),
    "claims": Manual(
        "list what masters hold",
        "the kind, the name, the master's id and the token of each",
        "statedb claims --kind scheduler",
    ),
    "expire": Manual(
        "mark inactive, holding nothing, who was silent for too long",
        "whom this call has expired: the id, the name, when it was last seen",
        "statedb expire --after 600",
    ),
    "forget": Manual(
        "delete a master that is inactive",
        "whom it forgot, or with --json: true",
        "statedb forget host1:/srv/master",
    ),
    "dump": Manual(
        "write all that there is, as of one moment, into a file of JSON Lines",
        "how much it was, unless the dump goes to standard output",
        "statedb dump state.jsonl",
    ),
    "load": Manual(
        "write what a dump holds into the database, over what is there of the same names",
        "how much it was",
        "statedb load state.jsonl",
    ),
}

DUMP_FILE: Final = "where to write it; - or nothing is standard output"
LOAD_FILE: Final = "where to read it; - or nothing is standard input"
RESUME: Final = (
    "commit every few thousand lines; after an interruption, run again, it goes on from there."
    " Without it, a load is all or nothing"
)
