# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as a page, in a browser: read, searched, sorted, and hostile."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame, Task
from kmemdump.kernel.printk import LogRecord
from kmemdump.report.memory_map import draw_map
from kmemdump.report.records import (
    AreaMemory,
    BlockedTask,
    Fault,
    Hardware,
    HeldLock,
    Instruction,
    Interrupt,
    KernelIdentity,
    Loss,
    MemoryMap,
    MemoryRange,
    MemoryUse,
    Module,
    Register,
    StackGroup,
    Taint,
    Times,
    Wait,
)
from kmemdump.report.report import Report
from kmemdump.report.text import find_excerpt
from rigs.browser import browse

pytestmark = pytest.mark.slow

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
EVIL_ATTRIBUTE = "\" onmouseover=\"document.title='owned'\" '{{ 7 * 7 }}"
PAGE = 4096


def record(number: int, level: int, text: str, facility: int = 0) -> LogRecord:
    return LogRecord(number, number * 10**9, level, facility, 1, False, text)


REPORT = Report(
    source=f"core {EVIL}",
    kernel=KernelIdentity(
        "6.1.0-test", "ab" * 20, "#1", "x86_64", EVIL, EVIL_ATTRIBUTE
    ),
    time=Times(datetime(2026, 4, 1, tzinfo=UTC), 61.5),
    cause=Cause(
        CauseKind.NULL,
        f"The kernel dereferenced a NULL pointer in task {EVIL}.",
        (record(3, 1, f"BUG: {EVIL}"),),
        (EVIL_ATTRIBUTE,),
        1,
        1,
        advice=EVIL,
    ),
    cpus=(
        Cpu(
            1,
            online=True,
            idle=False,
            task=Task(116, EVIL),
            frames=(
                Frame(1, "delay_tsc", 3, stack="irq"),
                Frame(2, EVIL, 5, EVIL_ATTRIBUTE, interrupted=True),
            ),
        ),
        Cpu(0, online=False, idle=True, interrupted=True, problem="no registers"),
    ),
    blocked=(BlockedTask(Task(77, EVIL, "D", 0), (Frame(9, "io_schedule", 1),)),),
    tasks=(
        Task(1, "init", "S", 0),
        Task(9, EVIL, "D", 1),
        Task(10, EVIL_ATTRIBUTE, "R"),
        Task(100, "sleep", "S", 1),
    ),
    memory=MemoryUse(1 << 30, 1 << 29, 2 << 20, 3 << 20, 4 << 20, 1 << 21, 0),
    memory_map=MemoryMap(
        (MemoryRange(PAGE, 159 * PAGE), MemoryRange(1 << 20, 1 << 30)),
        (
            AreaMemory("kmsg", 2 * PAGE, (MemoryRange(PAGE, 2 * PAGE),)),
            AreaMemory(EVIL_ATTRIBUTE, PAGE, (MemoryRange(1 << 30, PAGE),)),
        ),
    ),
    modules=(Module(EVIL, 0xFFFFFFFFC0000000, 4096, (Taint("O", EVIL),)),),
    taints=(Taint("O", EVIL),),
    interrupts=(Interrupt(0, ("timer", EVIL), 12345), Interrupt(9, ("acpi",), 7)),
    log=(
        record(1, 6, "Linux version 6.1.0"),
        record(2, 4, f"warned {EVIL}"),
        record(3, 1, f"BUG: {EVIL}\nsecond line"),
        record(4, 6, f"a program wrote {EVIL_ATTRIBUTE}\x1b[2J\u202e", facility=1),
    ),
    missing=(Loss(EVIL, EVIL_ATTRIBUTE),),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with browse() as found:
        yield found


@pytest.fixture
def show(browser: Chrome, tmp_path: Path) -> Iterator[Callable[[Report], Chrome]]:
    """``show(report)`` is the browser with its page; nothing may go wrong there."""

    def show(report: Report) -> Chrome:
        path = tmp_path / "page.html"
        path.write_text(report.to_html())
        browser.get(path.as_uri())
        return browser

    browser.get_log("browser")
    yield show
    assert browser.get_log("browser") == []
    assert browser.title != "owned"


def one(browser: Chrome, selector: str):
    return browser.find_element(By.CSS_SELECTOR, selector)


def click(browser: Chrome, selector: str) -> None:
    """Click on something that is not behind the head of the page."""
    found = one(browser, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    found.click()


def choose(browser: Chrome, selector: str, value: str) -> None:
    click(browser, selector)
    Select(one(browser, selector)).select_by_value(value)


def visible(browser: Chrome, selector: str) -> list[str]:
    found = browser.find_elements(By.CSS_SELECTOR, selector)
    return [item.text for item in found if item.is_displayed()]


def test_everything_is_told(show):
    page = show(REPORT)
    # With the details opened, as a person would.
    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = 1)")
    text = one(page, "body").text
    for words in (
        REPORT.cause.sentence,
        "1 min 1 s after boot, 2026-04-01 00:00:00 UTC",
        f"CPU 1, task {EVIL} (pid 116), where it happened",
        "delay_tsc+0x3",
        "interrupt, which came here:",
        f"{EVIL}+0x5 [{EVIL_ATTRIBUTE}]",
        "CPU 0, idle, then stopped by the panic",
        "no stack: no registers",
        f"{EVIL} (pid 77), last on CPU 0",
        "io_schedule+0x1",
        "12,345",
        f"timer, {EVIL}",
        "anonymous 2 MiB",
        "2 MiB swap, full",
        f"O {EVIL}",
        "0xffffffffc0000000",
        "12 KiB of 1.0 GiB",
        "kmsg 8 KiB",
        f"{EVIL}: {EVIL_ATTRIBUTE}",
        "second line",
        r"\x1b[2J\u202e",
        f"Next: {EVIL}",
    ):
        assert words in text, words


def test_what_matters_comes_first(show):
    page = show(REPORT)
    ids = [
        item.get_attribute("id") for item in page.find_elements(By.TAG_NAME, "section")
    ]
    assert ids[:5] == ["cause", "stack", "machine", "missing", "cpus"]
    (marked,) = page.find_elements(By.CSS_SELECTOR, ".stack .marked")
    assert marked.text.startswith("→")
    assert f"#1 {EVIL}+0x5" in marked.text
    assert one(page, "#machine dt").text == "Host"
    assert page.find_elements(By.CSS_SELECTOR, "#stack .marked") == [marked]
    # As the others, in one line.
    other = one(page, "#stack li:not(.marked):not(.came)")
    assert marked.size["height"] < 3 * other.size["height"]


def test_an_unproven_cause_has_no_cpu_of_its_own(show):
    alive = Cause(CauseKind.ALIVE, "It lives.", fatal=False)
    page = show(replace(REPORT, cause=alive))
    assert one(page, "#cause h2").text == "State"
    assert page.find_elements(By.CSS_SELECTOR, "#stack, .marked") == []
    assert one(page, "#cpus h2").text == "CPUs"


def test_hostile_strings_stay_text(show):
    page = show(REPORT)
    assert page.title.startswith("The kernel dereferenced a NULL pointer in task </scr")
    assert page.find_elements(By.TAG_NAME, "img") == []
    # The program, and the report as data.
    assert len(page.find_elements(By.TAG_NAME, "script")) == 2
    assert page.find_elements(By.CSS_SELECTOR, "[onmouseover]") == []
    assert "49" not in one(page, "#machine").text
    # Made again by the search, which marks what it finds.
    one(page, "#search").send_keys("<img")
    assert len(visible(page, "#records mark")) == 2
    assert page.find_elements(By.TAG_NAME, "img") == []


def test_even_a_script_in_the_page_is_not_run(show, browser, tmp_path):
    show(REPORT)
    page = REPORT.to_html().replace("<main>", "<main><script>alert(1)</script>")
    (tmp_path / "forged.html").write_text(page)
    browser.get((tmp_path / "forged.html").as_uri())
    (entry,) = browser.get_log("browser")
    assert "Content Security Policy" in entry["message"]


@given(st.text())
def test_any_text_stays_text(words):
    task = Task(1, words)
    page = replace(REPORT, tasks=(task,), log=(record(1, 6, words),)).to_html()
    assert page.count("<script>") == 1
    assert page.count("<td>") == replace(REPORT, tasks=(task,)).to_html().count("<td>")
    page.encode()


def test_search_and_filter_of_the_log(show):
    page = show(REPORT)
    shown = one(page, "#shown")
    assert shown.text == "4 of 4 records"
    search = one(page, "#search")
    search.send_keys("BUG")
    assert shown.text == "1 of 4 records"
    assert visible(page, "#records mark") == ["BUG"]
    search.send_keys(Keys.ENTER)
    assert shown.text == "1 of 4 records"
    search.clear()
    search.send_keys("nowhere")
    assert visible(page, "#records li") == []
    # A link to a record shows it all the same.
    click(page, "#cause .log a")
    WebDriverWait(page, 30).until(lambda _: shown.text == "4 of 4 records")
    assert search.get_property("value") == ""
    assert page.current_url.endswith("#r3")
    choose(page, "#level", "4")
    assert shown.text == "2 of 4 records"
    choose(page, "#level", "7")
    choose(page, "#from", "programs")
    (line,) = visible(page, "#records li")
    assert "a program wrote" in line


def test_sorted_and_filtered_tables(show):
    page = show(REPORT)
    first = "#task-table tbody tr td:first-child"
    assert visible(page, first) == ["1", "9", "10", "100"]
    heads = page.find_elements(By.CSS_SELECTOR, "#task-table th button")
    heads[0].click()
    assert visible(page, first) == ["100", "10", "9", "1"]
    assert heads[0].find_element(By.XPATH, "..").get_attribute("aria-sort") == (
        "descending"
    )
    heads[2].click()
    assert visible(page, first) == ["9", "10", "100", "1"]
    one(page, "input[data-table='task-table']").send_keys("sleep")
    assert visible(page, first) == ["100", "1"]  # "S" is "sleeping", too.
    count = page.find_elements(By.CSS_SELECTOR, "#interrupt-table th button")[1]
    count.click()
    number = "#interrupt-table tbody tr td:first-child"
    assert visible(page, number) == ["9", "0"]
    count.click()
    assert visible(page, number) == ["0", "9"]


def test_map(show):
    page = show(REPORT)
    click(page, "#cells rect[data-area='0']")
    assert one(page, "#cell").text == "0x0: 8 KiB captured, most of it for area kmsg"
    button = one(page, "#areas button[data-area='1']")
    button.click()
    chosen = page.find_elements(By.CSS_SELECTOR, "#cells .chosen")
    assert [item.get_attribute("data-area") for item in chosen] == ["1"]
    button.click()
    assert page.find_elements(By.CSS_SELECTOR, "#cells .pale, #cells .chosen") == []


def test_nothing_known(show):
    cause = Cause(CauseKind.UNKNOWN, "Nobody knows.")
    page = show(Report("x", KernelIdentity("6.1.0"), Times(), cause))
    assert "Nobody knows." in one(page, "main").text
    assert "None" not in one(page, "body").text


FAILED = replace(
    REPORT,
    fault=Fault(
        "log",
        (Register("RIP", 0xFFFFFFFFC0000005), Register("RAX", 7)),
        (
            Instruction(-1, "90", "nop"),
            Instruction(0, "c7 04 25", "mov dword ptr [8], 1"),
            Instruction(3, "c3"),
        ),
        EVIL,
    ),
    stacks=(
        StackGroup(
            tuple(Task(100 + number, f"worker{number}") for number in range(5)),
            (Frame(0x1000, "worker_thread", 0x10),),
        ),
        StackGroup((Task(7, EVIL),), (Frame(0x2000, "do_wait", 0x20),)),
    ),
    waits=(
        Wait(Task(1, EVIL), "mutex", Task(2, "b"), 0xFFFF888000000000),
        Wait(Task(2, "b", "D"), "semaphore", Task(3, "c", "S"), sure=False),
        Wait(Task(4, "d"), "rw-semaphore", name="lock [m]"),
    ),
    locks=(HeldLock(Task(2, "b"), EVIL, "f+0x1/0x2"),),
    hardware=Hardware(EVIL, "BIOS 7"),
)


def test_registers_code_and_locks(show):
    page = show(FAILED)
    text = one(page, "#fault").text
    assert text.startswith("Registers from the log")
    assert "ffffffffc0000005" in text
    (failed,) = page.find_elements(By.CSS_SELECTOR, "#fault .failed")
    assert failed.text == "→ +0 mov dword ptr [8], 1 c7 04 25"
    stacks = one(page, "#stacks").text
    assert "5 worker0 (pid 100), worker1 (pid 101), worker2 (pid 102) and 2" in stacks
    assert f"1 {EVIL} (pid 7)" in stacks
    waits = one(page, "#waits").text
    assert f"{EVIL} (pid 1) waits for a mutex at 0xffff888000000000, held by b" in waits
    assert (
        "b (pid 2) waits for a semaphore, last known to be held by c (pid 3), which is "
        "sleeping"
    ) in waits
    assert (
        "d (pid 4) waits for an rw-semaphore lock [m], whose holder is unknown" in waits
    )
    assert f"b (pid 2) {EVIL} f+0x1/0x2" in waits
    assert "BIOS 7" in one(page, "#machine").text


def test_copy(show):
    page = show(FAILED)
    for wanted in ("mail-text", "report-json"):
        page.execute_script(
            "navigator.clipboard.writeText = async (text) => { window.copied = text; };"
            # On a busy host, what is said for a moment is gone before it is read.
            "window.setTimeout = () => 0;"
        )
        click(page, f"[data-copy={wanted}]")
        button = one(page, f"[data-copy={wanted}]")
        WebDriverWait(page, 30).until(lambda _, it=button: it.text == "Copied")
        copied = page.execute_script("return window.copied")
        if wanted == "mail-text":
            assert copied == FAILED.to_mail()
        else:
            assert json.loads(copied) == json.loads(json.dumps(FAILED.to_json()))


def test_paper(show):
    late = [replace(REPORT.log[-1], sequence=100 + i) for i in range(200)]
    long = replace(FAILED, log=(*REPORT.log, *late))
    page = show(long)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
        assert visible(page, "nav, form, .buttons, #tasks, #theme") == []
        assert all(
            item.get_attribute("open")
            for item in page.find_elements(By.TAG_NAME, "details")
        )
        shown = len(visible(page, "#records li"))
        assert shown == len(find_excerpt(long)) < len(long.log)
        page.execute_script("window.dispatchEvent(new Event('afterprint'))")
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_words_in_a_table_on_a_phone(tmp_path):
    path = tmp_path / "page.html"
    words = "a module was loaded that is not part of the kernel"
    module = Module("lab", 0xFFFFFFFFC0000000, 4096, (Taint("O", words),) * 2)
    path.write_text(replace(REPORT, modules=(module,)).to_html())
    with browse(width=360) as page:
        page.get(path.as_uri())
        row = one(page, "#module-table tbody tr")
        assert row.size["height"] < 120  # A word a line took 400.


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_light_dark_and_narrow(tmp_path, dark, width):
    path = tmp_path / "page.html"
    path.write_text(REPORT.to_html())
    with browse(width=width, dark=dark) as page:
        page.get(path.as_uri())

        def colours() -> list[int]:
            back = "return getComputedStyle(document.body).backgroundColor"
            return [int(part) for part in page.execute_script(back)[4:-1].split(",")]

        assert (sum(colours()) < 200) == dark
        # Nothing sticks out, so that a phone need not be pushed sideways.
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        assert visible(page, "#theme") == ["Light" if dark else "Dark"]
        one(page, "#theme").click()
        assert (sum(colours()) < 200) != dark
        assert page.get_log("browser") == []


# The map's drawing


def test_drawing():
    size, rows = draw_map(REPORT.memory_map, columns=64, rows=24)
    assert size == 1 << 20
    assert [(row.address, row.columns) for row in rows[:1]] == [(0, 64)]
    assert sum(row.columns for row in rows) == 1025
    (first, second) = [cell for row in rows for cell in row.cells]
    assert (first.column, first.area, first.bytes) == (0, 0, 2 * PAGE)
    assert (second.address, second.area, second.bytes) == (1 << 30, 1, PAGE)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 52), st.integers(1, 1 << 44)), max_size=20),
    st.lists(st.tuples(st.integers(0, 1 << 52), st.integers(1, 1 << 30)), max_size=20),
)
def test_any_map_is_drawn(ram, held):
    ranges = tuple(MemoryRange(*item) for item in held)
    area = AreaMemory("x", sum(item.size for item in ranges), ranges)
    map = MemoryMap(tuple(MemoryRange(*item) for item in ram), (area,) if held else ())
    size, rows = draw_map(map, columns=8, rows=30)
    assert len(rows) <= 60
    for row in rows:
        assert row.columns <= 8
        for cell in row.cells:
            assert 0 <= cell.column < row.columns
            assert cell.address == row.address + cell.column * size
            assert cell.bytes > 0
