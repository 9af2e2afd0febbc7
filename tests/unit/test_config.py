"""The configuration: defaults, units, rules, and a line for every mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from daemon import config as configuration
from daemon.config import S3, Config, Limits, Log, Metrics, Notify, Ocr, Retry, Watch
from daemon.errors import ConfigError
from daemon.model import Disposal
from daemon.settings import S3_KEYS

ROOT = Path(__file__).parents[2]
WATCH = '[[watch]]\nname = "a"\nsource = "in"\nsink = "out"\n'


def load(folder: Path, text: str) -> Config:
    path = folder / "convertd.toml"
    path.write_text(text)
    return configuration.load(str(path))


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(folder, text)
    assert raised.value.exit_code == 2
    assert all(line.isprintable() for line in raised.value.mistakes)
    return raised.value.mistakes


def one_mistake(folder: Path, text: str) -> str:
    lines = mistakes(folder, text)
    assert len(lines) == 1, lines
    return lines[0]


# -- what a file without mistakes becomes ------------------------------------------------------------------------------


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, WATCH)
    assert config == Config(
        path=f"{tmp_path}/convertd.toml",
        state_dir=f"{tmp_path}/state",
        workers=len(os.sched_getaffinity(0)),
        limits=Limits(512 << 20, 512 << 20, 100 << 20, 300.0, 2 << 30),
        retry=Retry(3, (5.0, 10.0, 20.0)),
        uploads_concurrency=5,
        ocr=Ocr("auto", ("eng",), None),
        engines={},
        log=Log("info", "auto"),
        watches=(
            Watch(
                name="a",
                source=f"{tmp_path}/in",
                sink=f"{tmp_path}/out",
                include=("**/*",),
                exclude=(),
                priority=5,
                formats=("md", "json"),
                on_success=Disposal("keep"),
                on_failure=Disposal("keep"),
                poll_interval_seconds=30.0,
                rescan_interval_seconds=600.0,
                settle_seconds=0.02,
                batch="none",
                s3=S3(None, None, None, None, None, None, "auto", False, 5.0, 15.0),
                prefix="",
            ),
        ),
    )


def test_every_key(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        state_dir = "/var/lib/convertd"
        workers = 7
        limits.file_size = "1.5GB"
        limits.in_flight = 1048576
        limits.spool_above = "1 kib"
        limits.convert_time = 90
        limits.converter_memory = "1GiB"
        retry = { attempts = 1, backoff = ["0s", 0.5, "1h", "0s"] }
        uploads = { concurrency = 9 }
        ocr = { mode = "always", languages = ["deu", "chi_sim", "script/Latin"], tessdata_dir = "data" }
        engines = { pdf = ["xberg", "my.package:Engine"], html = ["html-to-markdown"] }
        log = { level = "debug", format = "json" }
        metrics = {}
        notify = {}
        [[watch]]
        name = "A-1_b.c"
        source = "/srv/in"
        sink = "x/../out"
        include = ["*.pdf", "in/"]
        exclude = ["**/a{b,c}"]
        priority = 10
        formats = ["md"]
        on_success = "move:done"
        on_failure = "move: /srv/bad"
        poll_interval = "1d"
        rescan_interval = "100ms"
        settle = 0
        batch = "none"
        [watch.s3]
        [[watch]]
        name = "second"
        source = "second"
        sink = "second.out"
        on_success = "delete"
        """,
    )
    assert config.state_dir == "/var/lib/convertd"
    assert config.workers == 7
    assert config.limits == Limits(1_500_000_000, 1 << 20, 1 << 10, 90.0, 1 << 30)
    assert config.retry == Retry(1, (0.0, 0.5, 3600.0, 0.0))
    assert config.uploads_concurrency == 9
    assert config.ocr == Ocr("always", ("deu", "chi_sim", "script/Latin"), f"{tmp_path}/data")
    assert config.engines == {"pdf": ("xberg", "my.package:Engine"), "html": ("html-to-markdown",)}
    assert config.log == Log("debug", "json")
    first, second = config.watches
    assert first == Watch(
        "A-1_b.c",
        "/srv/in",
        f"{tmp_path}/out",
        ("*.pdf", "in/"),
        ("**/a{b,c}",),
        10,
        ("md",),
        Disposal("move", f"{tmp_path}/done"),
        Disposal("move", "/srv/bad"),
        86400.0,
        0.1,
        0.0,
        "none",
    )
    assert second.on_success == Disposal("delete")


def test_the_example_says_what_the_defaults_are(tmp_path: Path) -> None:
    example = load(tmp_path, (ROOT / "config.example.toml").read_text())
    bare = load(tmp_path, '[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n')
    assert example == bare
    assert configuration.load(str(ROOT / "config.example.toml")).state_dir == str(ROOT / "state")


def uncommented(text: str) -> str:
    """Without the first comment mark of every line that is a key or a table behind it."""
    return re.sub(r"^# (?=(# )?(\[|[a-z0-9_]+ = ))", "", text, flags=re.MULTILINE)


def test_the_commented_lines_of_the_example_work_too(tmp_path: Path) -> None:
    config = load(tmp_path, uncommented((ROOT / "config.example.toml").read_text()))
    assert config.ocr.tessdata_dir == "/usr/share/tesseract-ocr/5/tessdata"
    assert config.engines == {"pdf": ("liteparse", "xberg", "pypdfium2")}
    assert config.metrics == Metrics(("127.0.0.1", 9464))
    assert config.notify == Notify(
        ("/usr/local/bin/tell", "--quiet"), "https://hooks.example/convertd", "/run/credentials/convertd.service/notify"
    )
    server = "http://127.0.0.1:8333"
    bucket, queue = config.watches[1:]
    assert bucket == Watch("bucket", "s3://documents/in/", "s3://documents/out/", s3=S3(server))
    assert queue == Watch(
        "queue",
        "sqs://documents-events",
        "s3://documents/events-out/",
        s3=S3(server, "http://127.0.0.1:9324"),
        prefix="s3://documents/events/",
    )


def test_the_example_has_every_key_of_a_bucket(tmp_path: Path) -> None:
    text = uncommented(uncommented((ROOT / "config.example.toml").read_text()))
    bucket = load(tmp_path, text).watches[1]
    assert bucket.s3.credentials_file == "/run/credentials/convertd.service/s3"
    written: set[str] = set()
    for watch in tomllib.loads(text)["watch"]:
        written |= set(watch.get("s3", {}))
    assert written == set(S3_KEYS)


def test_folders_of_a_source_may_be_batches(tmp_path: Path) -> None:
    assert load(tmp_path, WATCH + 'batch = "subfolder"').watches[0].batch == "subfolder"


def test_who_is_told_and_who_may_look(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        metrics.listen = "[::1]:9464"
        [notify]
        command = ["bin/tell", "-q", "-q"]
        webhook = "HTTPS://Hooks.Example:8443/a/b?c=d&e=%20"
        secret_file = "secrets/webhook"
        """
        + WATCH,
    )
    assert config.metrics == Metrics(("::1", 9464))
    assert config.notify == Notify(
        command=(f"{tmp_path}/bin/tell", "-q", "-q"),
        webhook="HTTPS://Hooks.Example:8443/a/b?c=d&e=%20",
        secret_file=f"{tmp_path}/secrets/webhook",
    )


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::]:65535", ("::", 65535)),
        ("monitor.example:80", ("monitor.example", 80)),
    ],
)
def test_where_metrics_are(tmp_path: Path, text: str, listen: tuple[str, int]) -> None:
    assert load(tmp_path, f'metrics.listen = "{text}"\n{WATCH}').metrics.listen == listen


def test_a_program_without_a_slash_is_looked_for_in_the_path(tmp_path: Path) -> None:
    assert load(tmp_path, f'notify.command = ["tell"]\n{WATCH}').notify == Notify(command=("tell",))
    assert load(tmp_path, f'notify.command = ["/opt/tell"]\n{WATCH}').notify == Notify(command=("/opt/tell",))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "https://[::1]/x", "https://a_b.example", "https://a.example?x"]
)
def test_webhooks(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, f'notify.webhook = "{url}"\n{WATCH}').notify == Notify(webhook=url)


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "convertd.toml"
    path.write_bytes(b"\xef\xbb\xbf" + WATCH.replace("\n", "\r\n").encode())
    assert configuration.load(str(path)).watches[0].name == "a"


def test_spool_above_is_at_most_in_flight_by_default(tmp_path: Path) -> None:
    limits = load(tmp_path, 'limits.in_flight = "1MiB"\n' + WATCH).limits
    assert limits.spool_above_bytes == limits.in_flight_bytes == 1 << 20


# -- buckets and queues ------------------------------------------------------------------------------------------------


def test_every_key_of_a_bucket(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        [[watch]]
        name = "a"
        source = "s3://bucket/in"
        sink = "s3://other"
        on_success = "move: s3://bucket/done"
        on_failure = "move:s3://bucket/bad/"
        [watch.s3]
        endpoint_url = "HTTPS://Minio.Example:443/"
        sqs_endpoint_url = "http://[::1]:9324"
        region = "eu-central-1"
        profile = "documents"
        credentials_file = "secrets/s3"
        ca_bundle = "/etc/own.pem"
        addressing = "path"
        anonymous = false
        connect_timeout = "500ms"
        read_timeout = 60
        """,
    )
    watch = config.watches[0]
    assert (watch.source, watch.sink) == ("s3://bucket/in/", "s3://other/")
    assert watch.on_success == Disposal("move", "s3://bucket/done/")
    assert watch.on_failure == Disposal("move", "s3://bucket/bad/")
    assert watch.s3 == S3(
        endpoint_url="https://minio.example",
        sqs_endpoint_url="http://[::1]:9324",
        region="eu-central-1",
        profile="documents",
        credentials_file=f"{tmp_path}/secrets/s3",
        ca_bundle="/etc/own.pem",
        addressing="path",
        anonymous=False,
        connect_timeout_seconds=0.5,
        read_timeout_seconds=60.0,
    )


@pytest.mark.parametrize(
    ("source", "sink"),
    [("in", "s3://bucket/out/"), ("s3://bucket/in/", "out"), ("s3://bucket/in/", "s3://bucket/out/")],
)
def test_folders_and_buckets_go_together(tmp_path: Path, source: str, sink: str) -> None:
    watch = load(tmp_path, f'[[watch]]\nname = "a"\nsource = "{source}"\nsink = "{sink}"\ns3.anonymous = true').watches[
        0
    ]
    assert watch.source.endswith(source)
    assert watch.sink.endswith(sink)
    assert watch.s3 == S3(anonymous=True)


def test_a_queue_and_its_prefix(tmp_path: Path) -> None:
    text = '[[watch]]\nname = "a"\nsource = "sqs://123456789012/events.fifo"\nsink = "out"\nprefix = "s3://bucket"\n'
    watch = load(tmp_path, text + 'on_success = "move:s3://bucket-done/"').watches[0]
    assert (watch.source, watch.prefix) == ("sqs://123456789012/events.fifo", "s3://bucket/")
    assert watch.on_success == Disposal("move", "s3://bucket-done/")


@pytest.mark.parametrize(
    ("s3", "is_aws", "queue_endpoint_url"),
    [
        (S3(), True, None),
        (S3(sqs_endpoint_url="http://localhost:9324"), True, "http://localhost:9324"),
        (S3("https://s3.eu-central-1.amazonaws.com"), True, None),
        (S3("https://bucket.vpce-1.s3.cn-north-1.vpce.amazonaws.com.cn:8443"), True, None),
        (S3("https://amazonaws.com.example"), False, "https://amazonaws.com.example"),
        (S3("http://localhost:8333", "http://localhost:9324"), False, "http://localhost:9324"),
    ],
)
def test_where_a_queue_is(s3: S3, is_aws: bool, queue_endpoint_url: str | None) -> None:
    assert s3.is_aws is is_aws
    assert s3.queue_endpoint_url == queue_endpoint_url


# -- without a file, and which file ------------------------------------------------------------------------------------


def test_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = configuration.for_folders("in", "out", "/srv/state")
    bare = load(tmp_path, 'state_dir = "/srv/state"\n' + WATCH.replace('"a"', f'"{config.watches[0].name}"'))
    assert config.path is None
    assert (config.state_dir, config.watches, config.limits) == (bare.state_dir, bare.watches, bare.limits)


def test_another_pair_of_folders_is_another_watch(tmp_path: Path) -> None:
    names = {
        configuration.for_folders(f"{tmp_path}/{source}", f"{tmp_path}/{sink}", f"{tmp_path}/state").watches[0].name
        for source, sink in (("a", "b"), ("a", "b"), ("a", "c"), ("c", "b"))
    }
    assert len(names) == 3, "the same pair keeps its name, and no other pair shares its history"


def test_two_buckets(tmp_path: Path) -> None:
    config = configuration.for_folders("s3://bucket/in", "s3://bucket/out/", f"{tmp_path}/state")
    again = configuration.for_folders("s3://bucket/in/", "s3://bucket/out", f"{tmp_path}/state")
    assert (config.watches[0].source, config.watches[0].sink) == ("s3://bucket/in/", "s3://bucket/out/")
    assert config == again
    with pytest.raises(ConfigError, match=r"^the prefix, which only a configuration file can have: found nothing"):
        configuration.for_folders("sqs://queue", f"{tmp_path}/out", f"{tmp_path}/state")


def test_two_folders_with_mistakes_are_named_as_the_command_does(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        configuration.for_folders(f"{tmp_path}/in", f"{tmp_path}/in/out", f"{tmp_path}/in/state")
    assert [line.split(", ")[0] for line in raised.value.mistakes] == [
        f'OUTBOX: found "{tmp_path}/in/out"',
        f'--state-dir: found "{tmp_path}/in/state"',
    ]
    assert f'which lies in INBOX "{tmp_path}/in"' in raised.value.mistakes[0]
    with pytest.raises(ConfigError, match=r'INBOX: found "ftp://b/"; ftp:// is not understood here'):
        configuration.for_folders("ftp://b/", f"{tmp_path}/out", f"{tmp_path}/state")


def test_folders_whose_names_end_with_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has run with them is known by its whole path, and looked at as such by `status`."""
    names = ("in ", "out\n", "state ")
    config = configuration.for_folders(*(f"{tmp_path}/{name}" for name in names))
    found = (config.watches[0].source, config.watches[0].sink, config.state_dir)
    assert found == tuple(f"{tmp_path}/{name}" for name in names)
    monkeypatch.chdir(tmp_path)
    relative = configuration.for_folders(*names)
    assert (relative.watches, relative.state_dir) == (config.watches, config.state_dir), "a shell says it as meant"
    for no_path in (" s3://bucket/out/", " sqs://queue", "~/out "):
        with pytest.raises(ConfigError, match="white space around it"):
            configuration.for_folders("in", no_path, "state")
    with pytest.raises(ConfigError) as raised:
        configuration.for_folders(" sqs://user:s3cr3t@queue", "out", "state")
    assert "s3cr3t" not in raised.value.message
    config = load(tmp_path, WATCH.replace('"in"', '"./ in /"'))
    assert config.watches[0].source == f"{tmp_path}/ in "


def test_folders_whose_names_are_not_utf8(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert configuration.for_folders(odd, f"{tmp_path}/out", f"{tmp_path}/state").watches[0].source == odd
    with pytest.raises(ConfigError) as raised:
        configuration.for_folders(odd, odd, f"{tmp_path}/state")
    assert raised.value.message.isprintable()


def test_without_any_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = configuration.defaults()
    assert config.watches == ()
    assert config.state_dir == f"{tmp_path}/.convertd"


def test_which_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").touch()
    (tmp_path / "y.toml").touch()
    system = configuration.find(None, {})
    assert system in (None, "/etc/convertd/config.toml")
    (tmp_path / "convertd.toml").touch()
    assert configuration.find(None, {"CONVERTD_CONFIG": ""}) == f"{tmp_path}/convertd.toml"
    assert configuration.find(None, {"CONVERTD_CONFIG": "y.toml"}) == f"{tmp_path}/y.toml"
    assert configuration.find("x.toml", {"CONVERTD_CONFIG": "y.toml"}) == f"{tmp_path}/x.toml"
    with pytest.raises(ConfigError, match='--config: found "none", which does not exist'):
        configuration.find("none", {})
    with pytest.raises(ConfigError, match=r'\$CONVERTD_CONFIG: found "none", which does not exist'):
        configuration.find(None, {"CONVERTD_CONFIG": "none"})


# -- what only others know ---------------------------------------------------------------------------------------------


def test_languages_that_are_not_installed(tmp_path: Path) -> None:
    config = load(tmp_path, 'ocr.languages = ["eng", "den"]\n' + WATCH)
    assert configuration.check_languages(config, {"eng", "den"}) == []
    assert configuration.check_languages(config, {"eng", "deu"}) == [
        'ocr.languages[1]: found "den", not installed in this environment; allowed: deu, eng; '
        "for another, set ocr.tessdata_dir to a folder with its .traineddata"
    ]


def test_a_long_tessdata_dir_is_shortened(tmp_path: Path) -> None:
    config = load(tmp_path, f'ocr.tessdata_dir = "/{"x" * 5000}"\n{WATCH}')
    (line,) = configuration.check_languages(config, set())
    assert len(line) < 400 and 'not installed in "/xxx' in line


def test_engines_that_do_not_exist(tmp_path: Path) -> None:
    config = load(tmp_path, 'engines = { pdf = ["xberk", "any.where:Engine"], pdx = ["xberg"] }\n' + WATCH)
    assert configuration.check_engines(config, {"xberg", "xberk"}, {"pdf", "pdx"}) == []
    assert configuration.check_engines(config, {"xberg", "text"}, {"pdf", "html"}) == [
        'engines.pdf[0]: found "xberk"; allowed: text, xberg or package.module:Class (did you mean "xberg"?)',
        'engines.pdx: found an unknown kind of document; allowed: html, pdf (did you mean "pdf"?)',
    ]


def test_checks_of_others_are_reported_together_with_the_file_s_own(tmp_path: Path) -> None:
    path = tmp_path / "convertd.toml"
    path.write_text('workers = -1\nocr.languages = ["xyz"]\n' + WATCH)
    with pytest.raises(ConfigError) as raised:
        configuration.load(str(path), checks=[lambda config: configuration.check_languages(config, {"eng"})])
    assert [line.split(":")[0] for line in raised.value.mistakes] == ["workers", "ocr.languages[0]"]


def test_reading_a_configuration_imports_nothing_but_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "convertd.toml").write_text(WATCH)
    program = (
        "import sys; before = set(sys.modules)\n"
        "from daemon import config; config.load('convertd.toml')\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'daemon'}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"
