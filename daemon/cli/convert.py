"""`convertd convert`: one-shot conversion, without daemon and job table."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import click

from daemon import app
from daemon import config as configuration
from daemon.config import Config
from daemon.errors import ConvertdError, DocumentError, Kind, TransientError, UsageError
from daemon.files import NotRegularFile, open_regular
from daemon.model import Conversion, Job, display, printable
from daemon.naming import output_name
from daemon.pool import ConverterPool
from daemon.results import result_files
from daemon.sinks.base import Origin, Sink
from daemon.sinks.folder import FolderSink


@click.command("convert")
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE…")
@click.option("-o", "--output", "folder", type=click.Path(file_okay=False), help="Write NAME.md and NAME.json here.")
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="Take limits, OCR and engines from it.")
def command(files: tuple[str, ...], folder: str | None, config_path: str | None) -> None:
    """Convert files now. One file and no -o: the Markdown goes to stdout."""
    if folder is None and len(files) > 1:
        raise UsageError("several files need a folder to write to", "convertd convert FILE… -o DIR")
    if folder is None and sys.stdout is None:
        raise UsageError("standard output is closed", "Name a folder to write to: convertd convert FILE… -o DIR")
    _refuse_collisions(files)
    config = _configuration(config_path)
    sink = FolderSink(os.path.abspath(folder)) if folder is not None else None
    pool = app.converter_pool(config, size=min(config.workers, len(files)), on_event=_tell)
    pool.start()
    try:
        with ThreadPoolExecutor(min(config.workers, len(files))) as threads:
            try:
                results = list(threads.map(partial(_convert, pool, config, sink), range(len(files)), files))
            except BaseException:
                pool.kill()  # Ctrl-C: else the threads would be waited for
                raise
    finally:
        pool.close()
        if sink is not None:
            sink.close()
    raise SystemExit(0 if all(results) else 1)


def _configuration(config_path: str | None) -> Config:
    found = configuration.find(config_path, os.environ)
    if found is None:
        return configuration.defaults()
    return configuration.load(found, checks=[app.installed])


def _tell(event: str, values: dict[str, object]) -> None:
    """What the pool notices: a sandbox that the kernel does not have is worth a line."""
    if event == "converter sandbox incomplete":
        click.echo(
            "warning: this kernel cannot shut converters up (Landlock, seccomp): trust what you convert", err=True
        )


def _refuse_collisions(files: tuple[str, ...]) -> None:
    names = [os.path.basename(file) for file in files]
    twice = sorted(name for name, number in Counter(names).items() if number > 1)
    if twice:
        raise UsageError(f"two files would be written to the same name: {', '.join(twice)}", "Convert them apart.")


def _convert(pool: ConverterPool, config: Config, sink: Sink | None, number: int, file: str) -> bool:
    """Convert one file; says on stderr what went wrong."""
    path = os.fsencode(file)
    started_at = time.time()
    try:
        job, conversion = _run(pool, config, number, path)
        if sink is None:
            sys.stdout.buffer.write(conversion.markdown)
            sys.stdout.buffer.flush()  # what cannot be written is to be known before the end
        else:
            files = result_files(job, conversion, ("md", "json"), started_at=started_at, finished_at=time.time())
            sink.publish(output_name(os.path.basename(path)), files, Origin(job.source))
    except ConvertdError as error:
        click.echo(f"{display(path)}: {printable(error.message)}\n  → {error.hint}", err=True)
        return False
    for warning in conversion.warnings:
        click.echo(f"{display(path)}: warning: {printable(warning)}", err=True)
    return True


def _run(pool: ConverterPool, config: Config, number: int, path: bytes) -> tuple[Job, Conversion]:
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        raise TransientError(Kind.UNREADABLE, "there is no such file", "Check the path.") from None
    except (OSError, NotRegularFile) as error:
        raise TransientError(Kind.UNREADABLE, f"cannot be read: {error}") from error
    try:
        status = os.fstat(fd)
        limit = config.limits.file_size_bytes
        if status.st_size > limit:
            raise DocumentError(Kind.TOO_LARGE, f"has {status.st_size:,} bytes; limits.file_size allows {limit:,}")
        job = Job(
            id=number,
            watch="convert",
            source=os.path.basename(path),
            version=f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}-{status.st_ctime_ns}",
            size_bytes=status.st_size,
            priority=5,
            attempts=0,
            interruptions=0,
            discovered_at=time.time(),
        )
        with pool.slot((0, number), lambda: False) as slot:
            return job, slot.convert(fd, os.fsdecode(job.source), config.limits.convert_seconds)
    finally:
        os.close(fd)
