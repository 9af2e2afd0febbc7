"""Every mistake a configuration can have gives one line: key, what was found, what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daemon import config as configuration
from daemon.errors import ConfigError
from daemon.words import show
from tests.unit.test_config import WATCH, load, mistakes, one_mistake


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("workers = -1", "workers: found -1; allowed: a whole number from 0 to 1024"),
        ("workers = true", "workers: found true; allowed: a whole number from 0 to 1024"),
        ('workers = "4"', 'workers: found "4"; allowed: a whole number from 0 to 1024'),
        ("workers = 2.0", "workers: found 2.0; allowed: a whole number"),
        ('state_dir = ""', 'state_dir: found ""; allowed: a folder'),
        ('state_dir = "~/state"', 'state_dir: found "~/state"; ~ is not expanded here: write the path out; allowed'),
        ('state_dir = "s3://x"', 'state_dir: found "s3://x"; s3:// is not understood here; allowed: a folder'),
        (r'state_dir = "a\u0000b"', r'state_dir: found "a\u0000b"; allowed: a folder'),
        (
            'limits.file_size = "512M"',
            'limits.file_size: found "512M"; allowed: a size: a number of bytes, or one with',
        ),
        ("limits.file_size = 0", "limits.file_size: found 0; allowed: a size"),
        ("limits.file_size = nan", "limits.file_size: found NaN; allowed: a size"),
        ('limits.file_size = "-1MiB"', 'limits.file_size: found "-1MiB"; allowed: a size'),
        ('limits.file_size = "1 000MiB"', "limits.file_size: found"),
        (
            'limits.converter_memory = "1023MiB"',
            'limits.converter_memory: found "1023MiB"; allowed: a size of at least 1GiB',
        ),
        (
            'limits.spool_above = "513MiB"',
            'limits.spool_above: found "513MiB"; allowed: at most limits.in_flight, which is 512MiB',
        ),
        (
            'limits.convert_time = "0s"',
            'limits.convert_time: found "0s"; allowed: a time from 100ms to 1d: a number of seconds',
        ),
        ('limits.convert_time = "5min"', 'limits.convert_time: found "5min"; allowed: a time'),
        ("limits.convert_time = true", "limits.convert_time: found true; allowed: a time"),
        ("limits.convert_time = inf", "limits.convert_time: found Infinity; allowed: a time"),
        ("limits.convert_time = 00:05:00", 'limits.convert_time: found "00:05:00"; allowed: a time'),
        ("retry.attempts = 0", "retry.attempts: found 0; allowed: a whole number from 1 to 100"),
        ("retry.backoff = []", "retry.backoff: found []; allowed: a list of times, at least one"),
        ('retry.backoff = "5s"', 'retry.backoff: found "5s"; allowed: a list of times'),
        ('retry.backoff = ["5s", "x"]', 'retry.backoff[1]: found "x"; allowed: a time from 0s to 1d'),
        ("uploads.concurrency = 0", "uploads.concurrency: found 0; allowed: a whole number from 1"),
        ('ocr.mode = "on"', 'ocr.mode: found "on"; allowed: "auto", "off", "always"'),
        ("ocr.languages = []", "ocr.languages: found []; allowed: a list of languages, at least one"),
        ('ocr.languages = ["eng+deu"]', 'ocr.languages[0]: found "eng+deu"; one language an entry; allowed'),
        ('ocr.languages = ["eng", "eng"]', 'ocr.languages[1]: found "eng" again; allowed: each of them once'),
        ('ocr.languages = ["../eng"]', 'ocr.languages[0]: found "../eng"; allowed: the name of a Tesseract language'),
        ('engines.pdf = "xberg"', 'engines.pdf: found "xberg"; allowed: a list of engines, at least one'),
        ('engines.pdf = ["x y"]', 'engines.pdf[0]: found "x y"; allowed: the name of an engine'),
        ('log.level = "INFO"', 'log.level: found "INFO"; allowed: "debug", "info", "warning", "error"'),
        ('log.format = "text"', 'log.format: found "text"; allowed: "auto", "json", "console"'),
        ("log = 3", "log: found 3; allowed: a table: [log]"),
        (
            'metrics.listen = "9464"',
            'metrics.listen: found "9464"; allowed: an address and a port, such as "127.0.0.1:9464" or "[::1]:9464"',
        ),
        ("metrics.listen = 9464", "metrics.listen: found 9464; allowed: an address and a port"),
        ('metrics.listen = ":9464"', 'metrics.listen: found ":9464"; all addresses are "0.0.0.0" or "[::]"; allowed'),
        ('metrics.listen = "::1:9464"', 'metrics.listen: found "::1:9464"; all addresses are'),
        ('metrics.listen = "[::g]:9464"', 'metrics.listen: found "[::g]:9464"; allowed: an address and a port'),
        ('metrics.listen = "[:::]:9464"', 'metrics.listen: found "[:::]:9464"; allowed: an address and a port'),
        ('metrics.listen = "localhost:0"', 'metrics.listen: found "localhost:0"; ports go from 1 to 65535; allowed'),
        ('metrics.listen = "unix:/run/x"', 'metrics.listen: found "unix:/run/x"; allowed: an address and a port'),
        ("metrics.port = 9464", "metrics.port: found an unknown key; allowed: listen"),
        (
            'notify.command = "tell me"',
            'notify.command: found "tell me"; allowed: a list of words, the program first, at least one',
        ),
        ("notify.command = []", "notify.command: found []; allowed: a list of words, the program first, at least one"),
        ('notify.command = ["tell", 4]', "notify.command[1]: found 4; allowed: a word of a command"),
        ('notify.command = [""]', 'notify.command[0]: found ""; allowed: a word of a command'),
        ("notify.webhook = true", 'notify.webhook: found true; allowed: the URL of a receiver, such as "https://HOST'),
        ('notify.secret_file = "."', 'notify.secret_file: found "."; it is a folder; allowed: the path of a file'),
        (
            'notify = { command = ["tell"], secret_file = "key" }',
            "notify.secret_file: found",
        ),
        ('notify.webhok = "https://x/"', "notify.webhok: found an unknown key; allowed: command, secret_file, webhook"),
        ("worker = 4", "worker: found an unknown key; allowed: engines, limits, log"),
        ("limits.file_sise = 4", "limits.file_sise: found an unknown key; allowed: convert_time, converter_memory"),
        ('"we\\nird key" = 4', r'"we\nird key": found an unknown key; allowed'),
    ],
)
def test_mistakes_at_the_top(tmp_path: Path, text: str, line: str) -> None:
    assert one_mistake(tmp_path, f"{text}\n{WATCH}").startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("priority = 11", "watch[0].priority: found 11; allowed: a whole number from 1 to 10"),
        ("include = []", "watch[0].include: found []; allowed: a list of globs, at least one"),
        ('include = "*.pdf"', 'watch[0].include: found "*.pdf"; allowed: a list of globs, at least one'),
        ('include = ["*", "/x"]', 'watch[0].include[1]: found "/x"; allowed: a glob relative to the source'),
        ("exclude = [4]", "watch[0].exclude[0]: found 4; allowed: a glob"),
        (
            'formats = ["json"]',
            'watch[0].formats: found ["json"]; "md" is always written; allowed: ["md"] or ["md", "json"]',
        ),
        ('formats = ["md", "html"]', 'watch[0].formats[1]: found "html"; allowed: "md", "json"'),
        ('on_success = "archive"', 'watch[0].on_success: found "archive"; allowed: "keep", "delete" or "move:DIR"'),
        (
            'on_success = "move:"',
            'watch[0].on_success: found "move:"; allowed: "keep", "delete" or "move:DIR" where DIR is a folder',
        ),
        (
            'on_success = "move:s3://bucket/"',
            'watch[0].on_success: found "move:s3://bucket/"; allowed: "move:DIR" where DIR is a folder, as the source',
        ),
        ('on_failure = "delete"', 'watch[0].on_failure: found "delete"; allowed: "keep" or "move:DIR"'),
        ('poll_interval = "0s"', 'watch[0].poll_interval: found "0s"; allowed: a time from 100ms to 1d'),
        ('rescan_interval = "2d"', 'watch[0].rescan_interval: found "2d"; allowed: a time from 100ms to 1d'),
        ('settle = "2h"', 'watch[0].settle: found "2h"; allowed: a time from 0s to 1h'),
        ('batch = "folder"', 'watch[0].batch: found "folder"; allowed: "none", "subfolder"'),
        ('s3.region = "x"', "watch[0].s3: found region; allowed: no such table but with an s3:// or sqs:// source or"),
        (
            'prefix = "s3://bucket/"',
            'watch[0].prefix: found "s3://bucket/"; allowed: no such key but with an sqs:// source',
        ),
        ("onsuccess = 1", "watch[0].onsuccess: found an unknown key; allowed: batch, exclude, formats"),
    ],
)
def test_mistakes_in_a_watch(tmp_path: Path, text: str, line: str) -> None:
    assert one_mistake(tmp_path, f"{WATCH}{text}\n").startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('name = "a b"\nsource = "in"\nsink = "out"', 'watch[0].name: found "a b"; allowed: a name of letters'),
        ('source = "in"\nsink = "out"', "watch[0].name: found nothing; allowed: a name of letters"),
        ('name = "a"\nsource = "in"', "watch[0].sink: found nothing; allowed: a folder"),
        ('name = "a"\nsink = "out"', "watch[0].source: found nothing; allowed: a folder"),
        ('name = "a"\nsource = 4\nsink = "out"', "watch[0].source: found 4; allowed: a folder"),
        (
            'name = "a"\nsource = "s3://bucket//in/"\nsink = "out"',
            'watch[0].source: found "s3://bucket//in/"; a prefix cannot have // in it; allowed: a folder or "s3://…"',
        ),
        (
            'name = "a"\nsource = "sqs://queue"\nsink = "out"',
            'watch[0].prefix: found nothing; allowed: "s3://BUCKET/PREFIX/", which the events of the queue are about',
        ),
        (
            'name = "a"\nsource = "in"\nsink = "sqs://queue"',
            'watch[0].sink: found "sqs://queue"; sqs:// is not understood here; allowed: a folder',
        ),
        (
            'name = "a"\nsource = "file:///in"\nsink = "out"',
            'watch[0].source: found "file:///in"; file:// is not understood here; allowed: a folder',
        ),
        (
            'name = "a"\nsource = "convertd.toml"\nsink = "out"',
            'watch[0].source: found "convertd.toml"; it is a file; allowed: a folder',
        ),
    ],
)
def test_mistakes_in_what_a_watch_must_have(tmp_path: Path, text: str, line: str) -> None:
    assert one_mistake(tmp_path, f"[[watch]]\n{text}\n").startswith(line)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("https://user:hunter2@a.example/", "a URL with a user or a password"),
        ("https://hunter2@a.example/", "a URL with a user or a password"),
        ("ftp://a.example/hunter2", "what is no such URL"),
        ("a.example/hunter2", "what is no such URL"),
        ("https:///hunter2", "what is no such URL"),
        ("https://a.example/hunter2#part", "what is no such URL"),
        ("https://a.example/hunter2 x", "what is no such URL"),
        ("https://a.example/hunter2\\r\\nX: y", "what is no such URL"),
        ("https://a.example:70000/hunter2", "a URL with port 70000; ports go from 1 to 65535"),
        ("https://[::g]/hunter2", "what is no such URL"),
        ("https://a..example/hunter2", "what is no such URL"),
    ],
)
def test_a_webhook_that_is_refused_is_not_shown(tmp_path: Path, value: str, found: str) -> None:
    line = one_mistake(tmp_path, f'notify.webhook = "{value}"\n{WATCH}')
    assert line.startswith(f"notify.webhook: found {found}")
    assert line.endswith('allowed: the URL of a receiver, such as "https://HOST/PATH"')
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (WATCH.replace('"in"', '" in "'), "watch[0].source"),
        (WATCH.replace('"in"', '"s3://bucket/in "'), "watch[0].source"),
        (WATCH.replace('"in"', '" s3://bucket/in"'), "watch[0].source"),
        (WATCH.replace('"out"', r'"out\n"'), "watch[0].sink"),
        (WATCH.replace('"out"', r'"\tout"'), "watch[0].sink"),
        (WATCH.replace('"in"', '"sqs://queue"\nprefix = "s3://bucket/in "'), "watch[0].prefix"),
        (f'state_dir = "state "\n{WATCH}', "state_dir"),
        (f'ocr.tessdata_dir = " /srv/data"\n{WATCH}', "ocr.tessdata_dir"),
        (f'notify = {{ webhook = "https://a/", secret_file = "key " }}\n{WATCH}', "notify.secret_file"),
    ],
)
def test_white_space_around_a_path(tmp_path: Path, text: str, key: str) -> None:
    line = one_mistake(tmp_path, text)
    assert line.startswith(f"{key}: found ") and "; white space around it: remove it, or" in line


def test_white_space_around_the_target_of_a_move_is_none_of_it(tmp_path: Path) -> None:
    config = load(tmp_path, f'{WATCH}on_success = "move: done "\n')
    assert config.watches[0].on_success.target == f"{tmp_path}/done"


def test_the_content_of_a_secret_file_is_not_shown(tmp_path: Path) -> None:
    line = one_mistake(tmp_path, f'notify = {{ webhook = "https://a/", secret_file = "hunter2\\n" }}\n{WATCH}')
    assert line.startswith("notify.secret_file: found what is no path")
    assert "hunter2" not in line


def test_an_unknown_key_that_is_nearly_right(tmp_path: Path) -> None:
    assert one_mistake(tmp_path, f"worker = 4\n{WATCH}").endswith('(did you mean "workers"?)')
    assert one_mistake(tmp_path, f"{WATCH}On_Sucess = 4\n").endswith('(did you mean "on_success"?)')
    assert not one_mistake(tmp_path, f"{WATCH}colour = 4\n").endswith("?)")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    lines = mistakes(
        tmp_path,
        'workers = -1\nlimits.file_size = "x"\nfoo = 1\n[[watch]]\nname = "a"\nsource = "in"\nsink = "in/out"\n'
        "[[watch]]\npriority = 0\nbar = 2\n",
    )
    keys = {line.split(": ")[0] for line in lines}
    assert keys == {
        "workers",
        "limits.file_size",
        "foo",
        "watch[0].sink",
        "watch[1].name",
        "watch[1].source",
        "watch[1].sink",
        "watch[1].priority",
        "watch[1].bar",
    }
    assert len(lines) == len(keys)


def test_a_value_is_not_measured_by_a_mistaken_one(tmp_path: Path) -> None:
    line = one_mistake(tmp_path, f'limits = {{ in_flight = "lots", spool_above = "600MiB" }}\n{WATCH}')
    assert line.startswith('limits.in_flight: found "lots"')


@pytest.mark.parametrize("text", ["", "watch = []"])
def test_no_watch(tmp_path: Path, text: str) -> None:
    assert one_mistake(tmp_path, text).startswith("watch: found nothing; allowed: at least one [[watch]]")


def test_single_brackets(tmp_path: Path) -> None:
    assert one_mistake(tmp_path, '[watch]\nname = "a"\n').endswith("allowed: tables with double brackets: [[watch]]")


def test_a_long_value_is_shortened_and_a_control_character_shown(tmp_path: Path) -> None:
    line = one_mistake(tmp_path, f'{WATCH}priority = "{"x" * 5000}"\n')
    assert len(line) < 300
    assert r"\u202e" in one_mistake(tmp_path, WATCH + 'priority = "\u202e"\n')


def test_a_value_that_nests_too_deeply_to_be_shown() -> None:
    """As dotted keys do without end. The parser takes long for so many, so it is not asked here."""
    value: object = 1
    for _ in range(200_000):
        value = {"a": value}
    assert show(value) == "values nested too deeply"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"workers = 1\nworkers 2\n", "line 2: found a syntax error (Expected '=' after a key in a key/value pair)"),
        (b'a = 1\nb = "x', "line 2: found a syntax error (Unterminated string)"),
        (b"a = 1\n\nb = '\xff'\n", "line 3: found bytes that are not UTF-8"),
        (b"a = " + b"9" * 5000, "found a syntax error"),
        (b"a = " + b"[" * 5000, "line 1: found values nested too deeply"),
        (b"a = 0x" + b"f" * 5000 + b"\n", "a: found an unknown key"),
        (b"workers = 0x" + b"f" * 5000 + b"\n" + WATCH.encode(), "workers: found an enormous number"),
        (b"#" * (2 << 20), "found more than 1MiB"),
    ],
)
def test_files_that_are_no_toml(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "convertd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        configuration.load(str(path))
    assert expected in raised.value.mistakes[0]
    assert all(line.isprintable() for line in raised.value.mistakes)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(ConfigError, match=f"{path}: cannot be read: {reason}"):
            configuration.load(str(path))


# -- folders in one another --------------------------------------------------------------------------------------------


def watches(*lines: str) -> str:
    return "\n".join(f'[[watch]]\nname = "w{number}"\n{line}' for number, line in enumerate(lines))


@pytest.mark.parametrize(
    ("text", "key", "relation"),
    [
        (watches("source='d'\nsink='d'"), "watch[0].sink", "the same folder as watch[0].source"),
        (watches("source='d'\nsink='d/out'"), "watch[0].sink", "which lies in watch[0].source"),
        (watches("source='d/in'\nsink='d'"), "watch[0].sink", "which holds watch[0].source"),
        (watches("source='d'\nsink='link/out'"), "watch[0].sink", "which lies in watch[0].source"),
        (watches("source='link/in'\nsink='d'"), "watch[0].sink", "which holds watch[0].source"),
        (watches("source='a'\nsink='b'", "source='c'\nsink='b'"), "watch[1].sink", "the same folder as watch[0].sink"),
        (watches("source='a'\nsink='b/x'", "source='c'\nsink='b'"), "watch[1].sink", "which holds watch[0].sink"),
        (
            watches("source='a'\nsink='d'", "source='c'\nsink='link'"),
            "watch[1].sink",
            "the same folder as watch[0].sink",
        ),
        (watches("source='a'\nsink='b/in'", "source='b'\nsink='c'"), "watch[0].sink", "which lies in watch[1].source"),
        (watches("source='a'\nsink='b'", "source='b/in'\nsink='c'"), "watch[0].sink", "which holds watch[1].source"),
        (
            watches("source='a'\nsink='b'\non_success='move:a/x'"),
            "watch[0].on_success",
            "which lies in watch[0].source",
        ),
        (watches("source='a/in'\nsink='b'\non_failure='move:a'"), "watch[0].on_failure", "which holds watch[0].source"),
        (watches("source='a'\nsink='b'\non_success='move:b/x'"), "watch[0].on_success", "which lies in watch[0].sink"),
        (
            watches("source='a'\nsink='b'", "source='c'\nsink='e'\non_failure='move:a'"),
            "watch[1].on_failure",
            "the same folder as watch[0].source",
        ),
        ("state_dir='a/state'\n" + watches("source='a'\nsink='b'"), "state_dir", "which lies in watch[0].source"),
        ("state_dir='b'\n" + watches("source='a'\nsink='b'"), "state_dir", "the same folder as watch[0].sink"),
        ("state_dir='a'\n" + watches("source='a/in'\nsink='b'"), "state_dir", "which holds watch[0].source"),
        (
            "state_dir='x'\n" + watches("source='a'\nsink='b'\non_success='move:x/y'"),
            "state_dir",
            "which holds watch[0].on_success",
        ),
        (
            watches("source='a'\nsink='b'", "source='a/x'\nsink='c'\non_success='delete'"),
            "watch[1].source",
            "which lies in watch[0].source",
        ),
        (
            watches("source='a'\nsink='b'\non_failure='move:e'", "source='a'\nsink='c'"),
            "watch[1].source",
            "the same folder as watch[0].source",
        ),
    ],
)
def test_folders_that_may_not_overlap(tmp_path: Path, text: str, key: str, relation: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    line = one_mistake(tmp_path, text)
    assert line.startswith(f'{key}: found "{tmp_path}')
    assert relation in line
    assert "; allowed: " in line


@pytest.mark.parametrize(
    "text",
    [
        watches("source='a'\nsink='b'", "source='a'\nsink='c'"),
        watches("source='a'\nsink='b'", "source='a/x'\nsink='c'"),
        watches("source='a'\nsink='ab'", "source='abc'\nsink='abcd'"),
        watches(
            "source='a'\nsink='b'\non_success='move:c'\non_failure='move:c/bad'",
            "source='e'\nsink='f'\non_success='move:c'",
        ),
    ],
)
def test_folders_that_may_overlap(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).watches


# -- buckets and queues ------------------------------------------------------------------------------------------------

BUCKET = '[[watch]]\nname = "a"\nsource = "s3://bucket/in/"\nsink = "out"\n'
QUEUE = '[[watch]]\nname = "a"\nsource = "sqs://queue"\nprefix = "s3://bucket/in/"\nsink = "out"\n'
SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'{BUCKET}on_success = "move:done"', 'watch[0].on_success: found "move:'),
        (
            f'{BUCKET}on_failure = "move:/srv/bad"',
            'watch[0].on_failure: found "move:/srv/bad"; allowed: "move:DIR" where DIR is "s3://…", as the source',
        ),
        (f'{QUEUE}on_success = "move:/done"', 'watch[0].on_success: found "move:/done"; allowed: "move:DIR" where'),
        (
            f'{BUCKET}on_success = "move:s3://b/done/"',
            'watch[0].on_success: found "move:s3://b/done/"; the name of a bucket has 3 to 63 letters, digits, dots '
            'and hyphens; allowed: "keep", "delete" or "move:DIR" where DIR is a folder or "s3://…"',
        ),
        (
            f'{BUCKET}prefix = "s3://bucket/in/"',
            'watch[0].prefix: found "s3://bucket/in/"; allowed: no such key but with an sqs:// source',
        ),
        (
            QUEUE.replace("s3://bucket/in/", "in"),
            'watch[0].prefix: found "in"; it does not start with s3://; allowed: "s3://BUCKET/PREFIX/"',
        ),
        (
            QUEUE.replace("s3://bucket/in/", "s3://bucket/../"),
            'watch[0].prefix: found "s3://bucket/../"; a prefix cannot have . or .. as a part; allowed',
        ),
        (
            QUEUE + 'batch = "subfolder"\n',
            'watch[0].batch: found "subfolder"; the daemons that share a queue have a part of each folder; allowed: '
            '"none" with an sqs:// source',
        ),
        (
            QUEUE.replace("sqs://queue", "sqs://team/queue"),
            'watch[0].source: found "sqs://team/queue"; the number of an account has 12 digits; allowed: a folder or '
            '"s3://…" or "sqs://…"',
        ),
        (f"{BUCKET}s3 = 4", "watch[0].s3: found 4; allowed: a table: [watch[0].s3]"),
        (
            f'{BUCKET}s3.endpoint_url = "localhost:8333"',
            'watch[0].s3.endpoint_url: found "localhost:8333"; allowed: the',
        ),
        (f'{BUCKET}s3.endpoint_url = "ftp://host"', 'watch[0].s3.endpoint_url: found "ftp://host"; allowed: the'),
        (f'{BUCKET}s3.endpoint_url = "http://my_host"', 'watch[0].s3.endpoint_url: found "http://my_host"; allowed'),
        (f'{BUCKET}s3.endpoint_url = "http://[::g]"', 'watch[0].s3.endpoint_url: found "http://[::g]"; allowed'),
        (
            f'{BUCKET}s3.endpoint_url = "http://h/v1"',
            'watch[0].s3.endpoint_url: found "http://h/v1"; it has a path; all',
        ),
        (f'{BUCKET}s3.endpoint_url = "http://h:0"', 'watch[0].s3.endpoint_url: found "http://h:0"; ports go from 1 to'),
        (f"{BUCKET}s3.endpoint_url = 0x{'f' * 5000}", "watch[0].s3.endpoint_url: found an enormous number; allowed"),
        (f"{BUCKET}s3.endpoint_url = [0x{'f' * 5000}]", "watch[0].s3.endpoint_url: found what is no URL; allowed"),
        (f"{QUEUE}s3.sqs_endpoint_url = 0x{'f' * 5000}", "watch[0].s3.sqs_endpoint_url: found an enormous number"),
        (f"{BUCKET}s3.endpoint_url = 4", "watch[0].s3.endpoint_url: found 4; allowed: the address of a server"),
        (
            f'{QUEUE}s3.sqs_endpoint_url = ""',
            'watch[0].s3.sqs_endpoint_url: found ""; allowed: the address of a server',
        ),
        (f'{BUCKET}s3.region = "eu central"', 'watch[0].s3.region: found "eu central"; allowed: the name of a region'),
        (f'{BUCKET}s3.profile = ""', 'watch[0].s3.profile: found ""; allowed: the name of a profile'),
        (
            f'{BUCKET}s3.ca_bundle = "."',
            'watch[0].s3.ca_bundle: found "."; it is a folder; allowed: the path of a file',
        ),
        (
            f'{BUCKET}s3.credentials_file = "~/.aws/credentials"',
            'watch[0].s3.credentials_file: found "~/.aws/credentials"; ~ is not expanded here',
        ),
        (f'{BUCKET}s3.addressing = "dns"', 'watch[0].s3.addressing: found "dns"; allowed: "auto", "path", "virtual"'),
        (f'{BUCKET}s3.anonymous = "yes"', 'watch[0].s3.anonymous: found "yes"; allowed: true, false'),
        (
            f'{BUCKET}s3.anonymous = true\ns3.profile = "p"',
            "watch[0].s3.anonymous: found true; credentials are configured beside it; allowed: false",
        ),
        (
            f'{BUCKET}s3.connect_timeout = "0s"',
            'watch[0].s3.connect_timeout: found "0s"; allowed: a time from 100ms to 1h',
        ),
        (f'{BUCKET}s3.read_timeout = "2h"', 'watch[0].s3.read_timeout: found "2h"; allowed: a time from 100ms to 1h'),
        (
            f'{BUCKET}s3.endpoint = "http://h"',
            "watch[0].s3.endpoint: found an unknown key; allowed: addressing, anonymous, ca_bundle, connect_timeout, "
            "credentials_file, endpoint_url, profile, read_timeout, region, sqs_endpoint_url (did you mean "
            '"endpoint_url"?)',
        ),
    ],
)
def test_mistakes_with_buckets_and_queues(tmp_path: Path, text: str, line: str) -> None:
    assert one_mistake(tmp_path, f"{text}\n").startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            f'{BUCKET}s3.endpoint_url = "https://user:{SECRET}@host"',
            "watch[0].s3.endpoint_url: found a URL with a user",
        ),
        (f'{BUCKET}s3.endpoint_url = "https//user:{SECRET}@host"', "watch[0].s3.endpoint_url: found a URL with a user"),
        (f'{BUCKET}s3.endpoint_url = ["https://u:{SECRET}@host"]', "watch[0].s3.endpoint_url: found what is no URL"),
        (f'{BUCKET}s3.endpoint_url.{SECRET} = "u@host"', "watch[0].s3.endpoint_url: found what is no URL"),
        (
            f'{BUCKET}s3.endpoint_url = "https://host/?key={SECRET}"',
            "watch[0].s3.endpoint_url: found a URL with a user",
        ),
        (f'{QUEUE}s3.sqs_endpoint_url = "http://:{SECRET}@h"', "watch[0].s3.sqs_endpoint_url: found a URL with a user"),
        (BUCKET.replace("bucket", f"key:{SECRET}@bucket"), "watch[0].source: found a URL with a user or a password"),
        (BUCKET.replace("s3://", f"https://u:{SECRET}@"), "watch[0].source: found a URL with a user or a password"),
        (BUCKET.replace("s3://", f" https://u:{SECRET}@"), "watch[0].source: found a URL with a user or a password"),
        (QUEUE.replace("s3://", f" s3://key:{SECRET}@"), "watch[0].prefix: found a URL with a user or a password"),
        (QUEUE.replace("s3://", f"s3://key:{SECRET}@"), "watch[0].prefix: found a URL with a user or a password"),
        (QUEUE.replace("out", f"s3://key:{SECRET}@bucket"), "watch[0].sink: found a URL with a user or a password"),
        (f'{BUCKET}on_success = "move:s3://{SECRET}@b"', "watch[0].on_success: found a URL with a user or a password"),
        (
            f'{BUCKET}s3.credentials_file = "[default]\\n{SECRET}"',
            "watch[0].s3.credentials_file: found what is no path",
        ),
        *(
            (
                f'{BUCKET}s3.{key} = "{SECRET}"',
                f"watch[0].s3.{key}: found what looks like a secret; secrets do not belong in this file; allowed: "
                "credentials_file, profile, or the environment of the daemon",
            )
            for key in (
                "access_key",
                "accessKeyId",
                "aws_access_key_id",
                "aws_secret_access_key",
                "aws-session-token",
                "key_id",
                "password",
                "secret",
                "secret_key",
                "secretAccessKey",
            )
        ),
        (f'{BUCKET}aws_secret_access_key = "{SECRET}"', "watch[0].aws_secret_access_key: found an unknown key"),
    ],
)
def test_a_secret_is_never_shown(tmp_path: Path, text: str, line: str) -> None:
    found = one_mistake(tmp_path, f"{text}\n")
    assert found.startswith(line)
    assert SECRET not in found


def test_settings_for_a_bucket_are_not_measured_by_a_mistaken_place(tmp_path: Path) -> None:
    text = BUCKET.replace("s3://bucket/in/", "s3://b/") + 's3.region = "x"\non_success = "move:done"\n'
    assert one_mistake(tmp_path, text).startswith('watch[0].source: found "s3://b/"')


@pytest.mark.parametrize(
    ("text", "key", "relation"),
    [
        ("source='s3://bucket/d'\nsink='s3://bucket/d/'", "watch[0].sink", "the same prefix as watch[0].source"),
        ("source='s3://bucket/d'\nsink='s3://bucket/d/out'", "watch[0].sink", "which lies in watch[0].source"),
        ("source='s3://bucket'\nsink='s3://bucket/out'", "watch[0].sink", "which lies in watch[0].source"),
        ("source='s3://bucket/d/in'\nsink='s3://bucket/d'", "watch[0].sink", "which holds watch[0].source"),
        (
            "source='sqs://queue'\nprefix='s3://bucket/d'\nsink='s3://bucket/d/out'",
            "watch[0].sink",
            "which lies in watch[0].prefix",
        ),
        (
            "source='s3://bucket/a'\nsink='o'\non_success='move:s3://bucket/a/done'",
            "watch[0].on_success",
            "which lies in watch[0].source",
        ),
        (
            "source='s3://bucket/a'\nsink='s3://bucket/b'\non_failure='move:s3://bucket/b/bad'",
            "watch[0].on_failure",
            "which lies in watch[0].sink",
        ),
    ],
)
def test_prefixes_that_may_not_overlap(tmp_path: Path, text: str, key: str, relation: str) -> None:
    line = one_mistake(tmp_path, watches(text))
    assert line.startswith(f'{key}: found "s3://bucket')
    assert relation in line
    assert re.search(r"; allowed: .*a prefix apart from every source", line)


def endpoint(url: str) -> str:
    return f"\ns3.endpoint_url='{url}'" if url else ""


@pytest.mark.parametrize(
    ("first", "second", "key", "relation"),
    [
        (
            "source='a'\nsink='s3://bucket/b'",
            "source='c'\nsink='s3://bucket/b/'",
            "watch[1].sink",
            "the same prefix as",
        ),
        ("source='a'\nsink='s3://bucket/b'", "source='c'\nsink='s3://bucket'", "watch[1].sink", "which holds"),
        ("source='a'\nsink='s3://bucket/b'", "source='s3://bucket/b/x'\nsink='c'", "watch[0].sink", "which holds"),
        (
            "source='s3://bucket/a'\nsink='b'",
            "source='s3://bucket/a/x'\nsink='c'\non_success='delete'",
            "watch[1].source",
            "which lies in",
        ),
        (
            "source='s3://bucket/a'\nsink='b'\non_success='delete'",
            "source='sqs://queue'\nprefix='s3://bucket/a'\nsink='c'",
            "watch[1].prefix",
            "the same prefix as",
        ),
    ],
)
def test_prefixes_of_two_watches(tmp_path: Path, first: str, second: str, key: str, relation: str) -> None:
    servers = [("", "https://s3.eu-central-1.amazonaws.com"), ("http://Host:80", "http://host/"), ("", "http://host")]
    texts = [watches(first + endpoint(one), second + endpoint(other)) for one, other in servers]
    for same_server in texts[:2]:
        line = one_mistake(tmp_path, same_server)
        assert line.startswith(f'{key}: found "s3://bucket')
        assert f", {relation} watch[" in line
    assert load(tmp_path, texts[2]), "another server has other buckets"


@pytest.mark.parametrize(
    "text",
    [
        watches("source='s3://bucket/a'\nsink='s3://bucket/ab'", "source='s3://bucket/b'\nsink='s3://bucket-2'"),
        watches("source='s3://bucket/a'\nsink='b'", "source='s3://bucket/a/x'\nsink='c'"),
        watches("source='s3://bucket/A'\nsink='s3://bucket/a'"),
        watches(
            "source='s3://bucket/a'\nsink='b'\non_success='move:s3://bucket/done'",
            "source='s3://bucket/c'\nsink='d'\non_success='move:s3://bucket/done/c'",
        ),
    ],
)
def test_prefixes_that_may_overlap(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).watches


def queues(first: str, second: str) -> str:
    keys = "prefix='s3://bucket/in'\n"
    return watches(f"sink='b'\n{keys}{first}", f"sink='c'\n{keys}{second}")


def test_two_watches_on_one_queue(tmp_path: Path) -> None:
    assert one_mistake(tmp_path, queues("source='sqs://q'", "source='sqs://q'")) == (
        'watch[1].source: found "sqs://q", the queue of watch[0]; each of them would take messages that the other '
        "waits for; allowed: a queue that no other watch reads"
    )
    same = "source='sqs://q'\ns3.endpoint_url='http://h'"
    assert one_mistake(tmp_path, queues(same, f"{same}\ns3.sqs_endpoint_url='http://h'"))
    owned = "source='sqs://123456789012/q'\n"
    assert one_mistake(tmp_path, queues(owned, f"{owned}s3.profile='p'"))


@pytest.mark.parametrize(
    "other",
    [
        "source='sqs://r'",
        "source='sqs://q'\ns3.sqs_endpoint_url='http://h'",
        "source='sqs://q'\ns3.region='eu-west-1'",
        "source='sqs://q'\ns3.profile='p'",
        "source='sqs://123456789012/q'",
    ],
)
def test_queues_that_may_be_different(tmp_path: Path, other: str) -> None:
    assert load(tmp_path, queues("source='sqs://q'", other)).watches


# -- names -------------------------------------------------------------------------------------------------------------


def test_two_watches_of_one_name(tmp_path: Path) -> None:
    text = WATCH + WATCH.replace('"in"', '"in2"').replace('"out"', '"out2"')
    line = one_mistake(tmp_path, text)
    assert line == 'watch[1].name: found "a", the name of watch[0]; allowed: a name that no other watch has'
