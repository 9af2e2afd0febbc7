"""How the suite of benchmarks judges: what falls short is said and is exit code 1, and nothing is left unsaid."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from daemon.db import reader
from daemon.files import filesystem_type
from daemon.statedir import StateDir
from tests.bench import chart, readme
from tests.bench.__main__ import main
from tests.bench.draining import Drained, Memory, drained, is_near, seconds_to_last_result
from tests.bench.host import code, machine
from tests.bench.registry import BENCHES
from tests.bench.rows import AT_LEAST, AT_MOST, EXACTLY, Row
from tests.bench.suite import Bench, Setting
from tests.harness import ROOT, Daemon, until


def bench(name: str, *rows: Row, error: str = "") -> Bench:
    """A benchmark that has measured already."""

    def run(setting: Setting) -> Iterator[Row]:
        yield from rows
        if error:
            raise RuntimeError(error)

    return Bench(name, "work", "baseline", "a target", "It feels quick.", run)


def row(value: float, sense: str = AT_LEAST, target: float | None = 2.0, name: str = "some row") -> Row:
    return Row(name, "1 ms", "2 ms", [value], sense, target)


def test_all_targets_reached_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    rows = row(2.0), row(2.0, AT_MOST), row(0.0, EXACTLY, 0.0), row(0.1, target=None)
    assert main([], [bench("one", *rows)]) == 0
    assert "every target is reached" in capsys.readouterr().out


@pytest.mark.parametrize(
    "short", [row(1.99), row(2.01, AT_MOST), row(1.0, EXACTLY, 0.0)], ids=["at least", "at most", "exactly"]
)
def test_a_row_that_falls_short_is_named_and_exit_code_1(short: Row, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [bench("one", row(9.0)), bench("two", short)]) == 1
    out = capsys.readouterr().out
    assert "falls short: some row" in out
    assert "every target is reached" not in out


def test_the_median_of_the_rounds_is_judged() -> None:
    assert main([], [bench("one", Row("some row", "", "", [0.1, 2.0, 9.0], AT_LEAST, 2.0))]) == 0
    assert main([], [bench("one", Row("some row", "", "", [0.1, 1.9, 9.0], AT_LEAST, 2.0))]) == 1


def test_what_must_be_exact_must_be_so_in_every_round() -> None:
    assert main([], [bench("one", Row("BUSY", "", "", [0.0, 0.0, 0.0], EXACTLY, 0.0))]) == 0
    assert main([], [bench("one", Row("BUSY", "", "", [0.0, 1.0, 0.0], EXACTLY, 0.0))]) == 1


def test_a_missing_peer_is_told_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    one = replace(bench("one", row(9.0)), needs=("json", "no_such_queue"))
    assert main([], [one, bench("two", row(9.0, name="the other"))]) == 1
    out = capsys.readouterr().out
    assert "broken: one: no_such_queue is not installed: pip install -e '.[bench]'" in out
    assert "the other" in out


def test_one_that_measures_nothing_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [bench("one"), bench("two", row(9.0))]) == 1
    assert "broken: one: no row was measured" in capsys.readouterr().out


def test_what_was_measured_before_ctrl_c_is_kept(tmp_path: Path) -> None:
    def interrupted(setting: Setting) -> Iterator[Row]:
        yield row(9.0, name="second")
        raise KeyboardInterrupt

    kept = tmp_path / "run.json"
    benches = [bench("one", row(9.0)), replace(bench("two"), run=interrupted), bench("three", row(9.0))]
    assert main(["--json", str(kept)], benches) == 1
    run = json.loads(kept.read_text())
    assert [one["row"] for one in run["rows"]] == ["some row", "second"]
    assert run["broken"] == {"two": "interrupted, and the rest not run"}


@pytest.mark.parametrize(
    "wrong",
    [
        ("--rounds", "0"),
        ("--rounds", "-1"),
        ("--folder", "no-such-folder"),
        ("--corpus", "no-such-folder"),
        ("--json", "no-such-folder/run.json"),
        ("--chart", "no-such-folder/run.svg"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(wrong, [bench("one", row(9.0))])
    assert end.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_a_folder_is_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def run(setting: Setting) -> Iterator[Row]:
        found.append(setting.folder)
        yield row(9.0)

    monkeypatch.chdir(tmp_path)
    assert main(["--folder", "."], [replace(bench("one"), run=run)]) == 0
    assert Path(found[0]).parent == tmp_path


@pytest.mark.skipif(filesystem_type(b"/dev/shm") != "tmpfs", reason="there is no tmpfs here")
def test_a_folder_in_memory_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", "/dev/shm"], [bench("one", row(9.0))]) == 0
    assert "/dev/shm lies in memory" in capsys.readouterr().out


def test_growth_below_nothing_is_no_bad_bar() -> None:
    bars = [
        chart.drawn({"rows": [one.as_json()], "quick": False, "machine": {"cpu": "any"}})
        for one in (row(-0.5, AT_MOST), row(2.0, AT_MOST))
    ]
    width = [float(found[1]) for bar in bars if (found := re.search(r'<rect x="[0-9]+" y="70" width="([0-9]+)"', bar))]
    start = [float(found[1]) for bar in bars if (found := re.search(r'<rect x="([0-9]+)" y="70"', bar))]
    assert start[0] == start[1], "to the right of the target"
    assert width[0] > width[1]


def test_one_that_breaks_is_exit_code_1_and_the_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [bench("one", error="no such peer"), bench("two", row(9.0, name="the other"))]) == 1
    out = capsys.readouterr().out
    assert "broken: one: RuntimeError: no such peer" in out
    assert "the other" in out


def test_only_those_named_are_run(capsys: pytest.CaptureFixture[str]) -> None:
    benches = [bench("one", row(0.0, name="first")), bench("two", row(9.0, name="second"))]
    assert main(["--only", "two"], benches) == 0
    assert "first" not in capsys.readouterr().out


def test_a_name_that_there_is_not_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--only", "three"], [bench("one"), bench("two")])
    assert end.value.code == 2
    assert "three" in capsys.readouterr().err


def test_a_quick_run_says_so_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, chart = tmp_path / "run.json", tmp_path / "run.svg"
    main(["--quick", "--json", str(kept), "--chart", str(chart)], [bench("one", row(3.0))])
    assert capsys.readouterr().out.count("QUICK RUN") == 2
    assert json.loads(kept.read_text())["quick"] is True
    assert "quick run" in chart.read_text()


def test_a_run_is_kept_with_its_machine(tmp_path: Path) -> None:
    kept, chart = tmp_path / "run.json", tmp_path / "run.svg"
    main(["--json", str(kept), "--chart", str(chart)], [bench("one", row(3.0, name="a < b"), row(1.0, AT_MOST))])
    run = json.loads(kept.read_text())
    assert {"cpu", "cores", "memory_gib", "kernel", "disk"} <= run["machine"].keys()
    assert [(kept["bench"], kept["row"], kept["reached"]) for kept in run["rows"]] == [
        ("one", "a < b", True),
        ("one", "some row", True),
    ]
    assert ElementTree.parse(chart).getroot().tag.endswith("svg")


def test_the_documented_rows_are_those_of_the_suite() -> None:
    documented = readme.DOCUMENT.read_text()
    assert f"<!-- rows -->\n{readme.rows_table(BENCHES)}\n<!-- /rows -->" in documented, (
        "docs/benchmarks.md and tests/bench/registry.py differ: python -m tests.bench.readme"
    )


def test_names_are_unique_and_every_benchmark_says_what_it_is() -> None:
    assert len({one.name for one in BENCHES}) == len(BENCHES)
    for one in BENCHES:
        assert all((one.work, one.against, one.to_reach, one.feels)), one.name


def test_the_suite_refuses_a_name_that_it_does_not_know() -> None:
    with pytest.raises(SystemExit) as end:
        main(["--only", "no-such-row"])
    assert end.value.code == 2


def test_the_suite_is_found_from_the_readme() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        assert "`python -m tests.bench`" in text, name
        assert "docs/benchmarks.md" in text, name


class Documentation:
    """A document and a README with markers, and what writes a run into them."""

    def __init__(self, folder: Path, benches: list[Bench]) -> None:
        self.document, self.readme, self.run = folder / "benchmarks.md", folder / "README.md", folder / "run.json"
        self.document.write_text(
            "before\n<!-- rows -->\n<!-- /rows -->\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n"
        )
        self.readme.write_text("before\n<!-- performance -->\nold\n<!-- /performance -->\nafter\n")
        self.benches = benches

    def measure(self, *options: str) -> None:
        """A run, as on a disk wherever temporary files lie, and of a commit whatever the clone holds."""
        main(["--json", str(self.run), *options], self.benches)
        kept = json.loads(self.run.read_text())
        kept["machine"] |= {"disk": "ext4", "code": "0123abc"}
        self.run.write_text(json.dumps(kept))

    def texts(self) -> list[str]:
        return [path.read_text() for path in (self.document, self.readme)]

    def write(self) -> int:
        where = ["--into", str(self.document), "--readme", str(self.readme)]
        return readme.main([str(self.run), *where], self.benches)


def test_a_run_is_written_between_the_markers(tmp_path: Path) -> None:
    many = Row("three a round", "1 ms", "2 ms", [3.0] * 5, AT_LEAST, 2.0)
    written = Documentation(tmp_path, [bench("one", row(3.0, name="a | b"), row(0.5, name="slow"), many)])
    written.measure()
    for _ in range(2):  # written again, it replaces itself
        assert written.write() == 0
    text = written.document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("| a \\| b | 1 ms | 2 ms | 3.00 [3.00-3.00] of 1 | ≥ 2.00 | yes |") == 1
    assert text.count("| slow | 1 ms | 2 ms | 0.50 [0.50-0.50] of 1 | ≥ 2.00 | **no** |") == 1
    assert text.count("| three a round | 1 ms | 2 ms | 3.00 [3.00-3.00] | ≥ 2.00 | yes |") == 1
    assert json.loads(written.run.read_text())["machine"]["cpu"] in text
    assert written.document.with_suffix(".svg").exists()


def test_the_readme_says_how_many_figures_reach_their_target(tmp_path: Path) -> None:
    benches = [bench("one", row(1.0, target=None), row(3.0, name="fast"), row(0.5, name="slow"), error="no disk")]
    written = Documentation(tmp_path, benches)
    written.measure()
    assert written.write() == 0
    text = written.readme.read_text()
    assert text.startswith("before\n<!-- performance -->\nMeasured on ")
    assert text.endswith("\n| fast | 3.00 [3.00-3.00] | ≥ 2.00 | **1 of 2**, broken |\n<!-- /performance -->\nafter\n")
    assert "**Broken in this run**: one: RuntimeError: no disk" in written.document.read_text()


@pytest.mark.parametrize("options", [("--quick", "--rounds", "9"), ("--rounds", "4")], ids=["quick", "too few rounds"])
def test_a_run_that_means_nothing_is_not_written(options: tuple[str, ...], tmp_path: Path) -> None:
    written = Documentation(tmp_path, [bench("one", row(3.0))])
    before = written.texts()
    written.measure(*options)
    assert written.write() == 2
    assert written.texts() == before


def interrupted(setting: Setting) -> Iterator[Row]:
    yield row(9.0)
    raise KeyboardInterrupt


@pytest.mark.parametrize("first", [bench("one", row(3.0)), replace(bench("one"), run=interrupted)], ids=["only", "^C"])
def test_a_run_that_is_not_whole_is_not_written(
    first: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = Documentation(tmp_path, [first, bench("two", row(1.0))])
    before = written.texts()
    written.measure(*(() if first.run is interrupted else ("--only", "one")))
    assert written.write() == 2
    assert f"{written.run} lacks two: run without --only" in capsys.readouterr().err
    assert written.texts() == before
    assert not written.document.with_suffix(".json").exists()


@pytest.mark.parametrize("code", ["0123abc-dirty", None])
def test_a_run_of_code_that_is_no_commit_is_not_written(
    code: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = Documentation(tmp_path, [bench("one", row(3.0))])
    before = written.texts()
    written.measure()
    run = json.loads(written.run.read_text())
    del run["machine"]["code"]
    run["machine"] |= {"code": code} if code else {}
    written.run.write_text(json.dumps(run))
    assert written.write() == 2
    assert "code that is no commit" in capsys.readouterr().err
    assert written.texts() == before


def test_a_run_in_memory_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = Documentation(tmp_path, [bench("one", row(3.0))])
    before = written.texts()
    written.measure()
    written.run.write_text(written.run.read_text().replace('"disk": "ext4"', '"disk": "tmpfs"'))
    assert written.write() == 2
    assert "made in memory" in capsys.readouterr().err
    assert written.texts() == before


def test_one_that_broke_before_its_first_row_keeps_its_line(tmp_path: Path) -> None:
    written = Documentation(tmp_path, [bench("one", error="no disk"), bench("two", row(3.0))])
    written.measure()
    assert written.write() == 0
    assert "\n| one: work |  | a target | **none**, broken |\n" in written.readme.read_text()
    text = written.document.read_text()
    assert "**Broken in this run**: one: RuntimeError: no disk" in text
    assert "Not in this run" not in text


def test_the_run_is_kept_and_all_can_be_made_from_it_again(tmp_path: Path) -> None:
    written = Documentation(tmp_path, [bench("one", row(3.0, name="ä"))])
    written.measure()
    assert written.write() == 0
    kept = written.document.with_suffix(".json")
    assert json.loads(kept.read_text()) == json.loads(written.run.read_text())
    before = written.texts()
    for path in (written.document, written.readme):
        path.write_text(path.read_text().replace("3.00", "9.00"))
    where = ["--into", str(written.document), "--readme", str(written.readme)]
    assert readme.main(where, written.benches) == 0
    assert written.texts() == before
    assert readme.main(where, [*written.benches, bench("two", row(1.0))]) == 0
    assert "Not in this run: two." in written.document.read_text()


KEPT = readme.DOCUMENT.with_suffix(".json")


@pytest.mark.skipif(not KEPT.exists(), reason="no run is kept yet: the next one that is written brings it")
def test_the_documented_figures_are_those_of_the_run_that_is_kept() -> None:
    kept = readme.written(json.loads(KEPT.read_text()), BENCHES, readme.DOCUMENT, readme.README)
    for path, text in kept.items():
        assert path.read_text() == text, f"{path} differs from the run in {KEPT}: python -m tests.bench.readme"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_run_says_which_code_was_measured(tmp_path: Path) -> None:
    assert code(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("a")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "a")
    git(tmp_path, "tag", "-am", "1", "1")
    commit = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert code(tmp_path) == commit
    (tmp_path / "a").write_text("b")
    assert code(tmp_path) == f"{commit}-dirty"
    (tmp_path / "below").mkdir()
    assert code(tmp_path / "below") is None
    run = {"machine": {**machine(str(tmp_path)), "code": commit}, "measured_at": "now", "rounds": 5, "documents": "any"}
    written = Documentation(tmp_path, [])
    written.run.write_text(json.dumps({**run, "quick": False, "rows": [], "broken": {}}))
    assert written.write() == 0
    assert all(f"Measured on now with the code of {commit}: " in text for text in written.texts())


def test_the_documents_have_the_markers() -> None:
    for path, marker in ((readme.DOCUMENT, readme.FIGURES), (readme.README, readme.PERFORMANCE)):
        assert readme.replaced(path.read_text(), marker, "new") != path.read_text()


def test_a_drain_lasts_until_its_last_result_and_no_look_at_it_counts(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged").rename(daemon.inbox / "batch")
    results = daemon.outbox / "batch"
    results.mkdir(parents=True)
    for name in ("a.pdf.md", ".b.tmp"):
        (results / name).write_text("text")
    (results / ".b.tmp").rename(results / "b.pdf.error.json")
    last = (results / "b.pdf.error.json").stat().st_ctime_ns

    def written_later() -> bool:
        sidecar = results / "b.pdf.json"
        sidecar.write_text("{}")
        return sidecar.stat().st_ctime_ns > last

    until(written_later, "the clock of the file system goes on")
    assert seconds_to_last_result(daemon) == (last - (daemon.inbox / "batch").stat().st_ctime_ns) / 1e9


def test_a_drain_lasts_until_its_last_job_has_ended_in_the_job_table(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    documents = [tmp_path / "documents" / f"{number}.html" for number in range(12)]
    for path in documents:
        path.write_text(f"<h1>{path.stem}</h1>")
    began = time.monotonic()
    result = drained(documents, tmp_path / "drain", workers=2)
    with reader(StateDir(str(tmp_path / "drain" / "state")).database) as db:
        ((jobs, last),) = db.execute("SELECT count(*), max(finished_at) FROM jobs WHERE state = 'completed'")
    assert jobs == 1 + len(documents)  # the warm-up, too
    begun = (tmp_path / "drain" / "inbox" / "batch").stat().st_ctime
    assert last - begun - 0.01 < result.seconds < time.monotonic() - began  # file systems' clocks are some ms behind
    assert result.busy == 0
    assert (result.memory[0].documents, result.memory[-1].documents) == (0, len(documents))


@pytest.mark.parametrize(
    ("ended", "seconds", "near"),
    [(0, 0.0, False), (0, 3.0, False), (100, 1.0, False), (450, 4.0, False), (480, 4.0, True)],
)
def test_the_end_of_a_drain_is_near_where_the_rest_takes_a_moment(ended: int, seconds: float, near: bool) -> None:
    assert is_near(ended, 500, seconds) is near


def test_memory_is_told_of_the_documents_asked_for() -> None:
    looks = [Memory(documents, daemon_bytes=documents, children_bytes=0) for documents in (0, 600, 700, 950, 800)]
    drain = Drained(memory=looks)
    assert drain.memory_between(600, 700, lambda memory: memory.daemon_bytes) == 650
    assert drain.most_memory(500, lambda memory: memory.daemon_bytes) == 950
