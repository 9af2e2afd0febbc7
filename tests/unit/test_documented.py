"""No command and no option is missing from the README, no key from config.example.toml, and what they name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import click

from daemon import settings
from daemon.cli import COMMANDS, cli
from daemon.ground import Ground
from daemon.tables import Mistakes, Table
from tests.harness import ROOT

README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "config.example.toml").read_text()
EVERYWHERE = {"--help", "-h", "--config", "--state-dir"}
"""Said once below the table of commands."""


def options(command: str) -> dict[str, set[str]]:
    """All that a command takes, each option with all its spellings."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    spellings = [set(option.opts) for option in found.params if isinstance(option, click.Option) and not option.hidden]
    return {max(names, key=len): names for names in spellings}


def is_documented(command: str, names: set[str]) -> bool:
    """In the row of the command or, where no other command has such an option, anywhere else."""
    if any(name in rows().get(command, "") for name in names):
        return True
    others = {name for other in COMMANDS if other != command for each in options(other).values() for name in each}
    return any(f"`{name}" in README for name in names - others)


def rows() -> dict[str, str]:
    """The lines of the README's table of commands, by command."""
    found = re.findall(r"^\| `convertd ([a-z]+)([^\n]*)$", README, re.MULTILINE)
    return dict(found)


class Recorder(Table):
    """An empty table that remembers which keys somebody wanted, and gives an empty one for every table below."""

    def __init__(self, keys: set[str], key: str = "") -> None:
        super().__init__({}, Mistakes(), key)
        self._keys = keys

    def _take(self, key: str) -> bool:
        self._keys.add(self.path(key))
        return super()._take(key)

    def table(self, key: str) -> Table:
        return Recorder(self._keys, self.path(key))

    def tables(self, key: str) -> list[Table]:
        return [Recorder(self._keys, self.path(key))]

    def take_all(self) -> list[str]:
        return []


def known_keys() -> set[str]:
    """Every key that the program takes from a configuration, found by having it take them."""
    keys: set[str] = set()
    settings.settings_from(Recorder(keys), None, Ground("/"))
    return keys


def example_keys() -> set[str]:
    """Every key in the example, those that are commented out included."""
    keys = set()
    table = ""
    for line in EXAMPLE.splitlines():
        plain = re.sub(r"^(# ?)+", "", line)
        if found := re.match(r"\[+([a-z0-9_.]+)\]+", plain):
            table = found[1] + "."
        elif found := re.match(r"([a-z0-9_]+) = ", plain):
            keys.add(table + found[1])
    return keys


def missing(what: Mapping[str, set[str]] | set[str]) -> str:
    """For the message of an assertion."""
    if isinstance(what, Mapping):
        return "; ".join(f"{name}: {', '.join(sorted(lacks))}" for name, lacks in what.items() if lacks)
    return ", ".join(sorted(what))


def test_every_command_has_a_row_in_the_readme() -> None:
    lacks = {command for command in COMMANDS if f"`convertd {command}" not in README}
    assert not lacks, f"not in README.md: {missing(lacks)}"
    lacks = set(COMMANDS) - rows().keys()
    assert not lacks, f"no row in the table of commands of README.md: {missing(lacks)}"


def test_every_option_is_in_the_readme() -> None:
    lacks = {
        command: {
            option
            for option, names in options(command).items()
            if option not in EVERYWHERE and not is_documented(command, names)
        }
        for command in COMMANDS
    }
    assert not any(lacks.values()), f"not in the rows of commands in README.md: {missing(lacks)}"


def test_what_all_commands_take_is_said_once() -> None:
    for option in EVERYWHERE - {"--help", "-h"}:
        assert f"`{option}" in README


def test_the_readme_names_no_option_that_there_is_not() -> None:
    wrong = {
        command: set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", row)) - options(command).keys() - EVERYWHERE
        for command, row in rows().items()
        if command in COMMANDS
    }
    assert not any(wrong.values()), f"README.md names what does not exist: {missing(wrong)}"
    strange = rows().keys() - set(COMMANDS)
    assert not strange, f"README.md names commands that do not exist: {missing(strange)}"


def test_every_key_is_in_the_example() -> None:
    keys = {key for key in known_keys() if not any(other.startswith(f"{key}.") for other in known_keys())}
    lacks = keys - example_keys()
    assert not lacks, f"not in config.example.toml: {missing(lacks)}"


def test_the_example_has_no_key_that_there_is_not() -> None:
    wrong = {key for key in example_keys() if not key.startswith("engines.")} - known_keys()
    assert not wrong, f"config.example.toml names what does not exist: {missing(wrong)}"


def test_the_keys_are_found_by_taking_them() -> None:
    """The other tests would pass if nothing was found at all."""
    assert {"state_dir", "limits.file_size", "watch.settle", "watch.s3.endpoint_url"} <= known_keys()
    assert {"state_dir", "limits.file_size", "watch.settle", "watch.s3.endpoint_url"} <= example_keys()
    assert {"--json", "--watch"} <= options("status").keys()


def helped() -> Iterator[tuple[str, click.Parameter]]:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for parameter in command.params:
            yield name, parameter


def test_every_command_and_option_has_its_help() -> None:
    lacks = [
        f"{name} {parameter.opts[0]}"
        for name, parameter in helped()
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert not lacks, f"options without help: {', '.join(lacks)}"
    silent = [name for name in COMMANDS if not (cli.get_command(click.Context(cli), name) or click.Command("")).help]
    assert not silent, f"commands without help: {', '.join(silent)}"
