"""Converters: real documents through real children, in the sandbox and with the languages that are configured."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

from daemon import app, sandbox
from daemon.checks.base import Check, Finding, Group, Stopping, ok, problem, warning
from daemon.config import Config
from daemon.converters.route import SAMPLES
from daemon.converters.tessdata import available_languages, knows_orientation
from daemon.errors import DocumentError, EnvironmentProblem
from daemon.model import Conversion
from daemon.pool import ConverterPool, Slot

SECONDS = 240.0
CONVERT_SECONDS = 60.0
WORDS = "warming"
DIGITS = "1234567890"
REMEDY = "Look at the load of this machine (top), then run convertd doctor again; limits.converter_memory may be low."
ENGINES = "Mend [engines] where it names others, or install anew: pip install --force-reinstall convertd"
ENABLE_LANDLOCK = (
    "Boot a kernel of 5.13 or newer with Landlock: add lsm=landlock,lockdown,yama,integrity,apparmor,bpf to its command"
    " line where /sys/kernel/security/lsm does not name it; until then convert only what you trust"
)
# "2026 1234567890" as a PNG of two colours: digits, since those are in the data of every language.
PICTURE = base64.b85decode(
    "iBL{Q4GJ0x0000DNk~Le0003b0000{0RR9108<*~hX4Qpyh%hsRCwC$)Ul4+Fbn`t6&XCL-8vk?enLMWIR4n-<Sk24{y-7^NCy=G%F&-t1sbwC@Z"
    "zF6v9x_nbifTA+RZj38SsNlQIw7R&1F`#s#UG(Kd7<{KVDU>3$Aq$B}>5I#D}H_vxzX;(O#9o77YfFQCet0AT-gMO|Y@)n?I@`z&!$y^a2D>fQ4C"
    "(yidn;zNrIl(L*OupaaVKL}y`QPMogFea3?$eb)+pN6LOyMBEKLR7!6`kxzmw^wX1g(T_7-y2~vSUmVFn)mIUn=AsIo6;<j^)%K&)Oo)QPxA-0lG"
    "QCh`=cwF&fJwoKXW!blwzvqdsK(B!NA^UUeOAS%O63Pf`4LD}!D7jKwwyH;>071x?5Lk|nPqgMNRmyX5XU!_I;lEow5oa$)=3kn@@afmsiUgnqE4"
    "#JW>Ob{Bz5#u9MPiqr5dWNLUCRzVNx^pkZ4xj(A{=OGq}Y?!J>3|gT__wc2==N-CfB=r_@cPy_SQnQTuD<WMj?FSS`O?OrwJjHrOOn6~?Ag;XxbD"
    "N(UbyYUmMqs480Im$s+dX?S`*C)&I9Z?dXYt?J*Y-(Wh}b8Xxi5&!@I07*qoM6N<$f&"
)


def group(config: Config) -> Group:
    """The checks of converters as this configuration has them."""
    return Group("converters", _check(config), SECONDS, REMEDY)


def _check(config: Config) -> Check:
    def check(stopping: Stopping) -> Iterator[Finding]:
        # A language that is missing is a mistake of the configuration, and told as such.
        installed = available_languages(config.ocr.tessdata_dir)
        languages = tuple(language for language in config.ocr.languages if language in installed)
        mode = config.ocr.mode if languages else "off"
        yield from _samples(config._replace(ocr=config.ocr._replace(mode=mode, languages=languages)), stopping)
        if config.ocr.mode == "off":
            yield ok("OCR is switched off")
            return
        for language in languages:
            if not stopping():
                yield _reading(config, language, stopping)
        yield from _orientation(config, installed)

    return check


def _samples(config: Config, stopping: Stopping) -> Iterator[Finding]:
    """One document of each sample's kind, one child for all."""
    heard: list[tuple[str, dict[str, object]]] = []
    pool = app.converter_pool(config, size=1, on_event=lambda event, values: heard.append((event, values)))
    with stopping.interrupting(pool.kill):
        pool.start()
        try:
            with pool.slot((0.0, 1), stopping) as slot:
                for kind, sample in SAMPLES.items():
                    yield _sample(slot, kind, sample)
        except EnvironmentProblem as error:
            yield problem(error.message, ENGINES)
            return
        finally:
            pool.close()
    yield _sandbox([values for event, values in heard if event == "converter sandbox incomplete"])


def _sample(slot: Slot, kind: str, sample: bytes) -> Finding:
    try:
        conversion = _convert(slot, f"sample.{kind}", sample)
    except DocumentError as error:
        return problem(f"a sample of {kind} cannot be converted: {error.message}", ENGINES)
    if WORDS not in bytes(conversion.markdown).decode("utf-8", "replace"):
        what = f"{conversion.engine} {conversion.engine_version} finds no text in a sample of {kind}"
        return problem(what, ENGINES)
    return ok(f"{kind}: converted by {conversion.engine} {conversion.engine_version}")


def _sandbox(missing: list[dict[str, object]]) -> Finding:
    if not missing:
        return ok(f"sandbox: Landlock (version {sandbox.landlock_version()} of the kernel) and seccomp")
    facts = missing[0]
    if not facts["landlock_abi"]:
        return warning(
            "sandbox: this kernel has no Landlock: a document that takes a converter over can read files",
            ENABLE_LANDLOCK,
        )
    return warning("sandbox: this kernel takes no seccomp filter", "Boot a kernel with CONFIG_SECCOMP_FILTER")


def _reading(config: Config, language: str, stopping: Stopping) -> Finding:
    """OCR with this language alone, so that one with damaged data is found."""
    alone = config._replace(ocr=config.ocr._replace(languages=(language,)))
    pool = app.converter_pool(alone, size=1, on_event=lambda event, values: None)
    try:
        conversion = _picture(pool, stopping)
    except (DocumentError, EnvironmentProblem) as error:
        what = f"OCR fails with the language {language}: {error.message}"
        return problem(what, f"Get its data anew: {_data_of(language)}")
    finally:
        pool.close()
    text = " ".join(bytes(conversion.markdown).decode("utf-8", "replace").split())
    if not text:
        return problem(f"OCR reads nothing with the language {language}", f"Get its data anew: {_data_of(language)}")
    misread = "" if DIGITS in text else f", though digits as {text[:40]!r}"
    return ok(f"OCR reads {language}{misread}, by {conversion.engine} {conversion.engine_version}")


def _data_of(language: str) -> str:
    return f"pip install --force-reinstall tessdata.fast-{language}, or a new {language}.traineddata in tessdata_dir"


def _picture(pool: ConverterPool, stopping: Stopping) -> Conversion:
    with stopping.interrupting(pool.kill):
        pool.start()
        with pool.slot((0.0, 1), stopping) as slot:
            return _convert(slot, "picture.png", PICTURE)


def _convert(slot: Slot, name: str, content: bytes) -> Conversion:
    fd = os.memfd_create("sample", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        return slot.convert(fd, name, CONVERT_SECONDS)
    finally:
        os.close(fd)


def _orientation(config: Config, installed: set[str]) -> Iterator[Finding]:
    folder = config.ocr.tessdata_dir
    if installed and folder and not knows_orientation(folder):
        what = f"{folder} has no osd.traineddata: pages that lie on their side are not turned"
        yield warning(what, f"apt install tesseract-ocr-osd, or copy osd.traineddata into {folder}")
