# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of a catalogue, in a browser: from a folder, and hostile."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from kmemdump.catalogue.activity import find_activity
from kmemdump.catalogue.pages import write_pages
from kmemdump.catalogue.parquet import SCHEMA, to_table
from kmemdump.catalogue.place import Place
from kmemdump.catalogue.store import Catalogue
from kmemdump.cli import main
from rigs.browser import browse
from rigs.deaths_rows import START, made_row

pytestmark = pytest.mark.slow

EVIL = "</script><script>document.title='owned'</script>\" onload='x' {{ 7 * 7 }}"


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    found = Catalogue(Place(str(tmp_path / "place")))
    evil = {"signature": f"panic: {EVIL}", "sentence": EVIL, "machine": EVIL}
    rows = [made_row(number) for number in range(30)]
    rows += [made_row(n, **evil, release=EVIL, source=EVIL) for n in range(100, 103)]
    rows += [made_row(200, kind=None, signature=None, problem=EVIL, source=EVIL)]
    found.add(rows)
    for row in rows[25:30]:
        found.add_page(row.content, b"<!DOCTYPE html><title>a report</title>")
    return found


@pytest.fixture(scope="module", params=[1280, 390])
def browser(request) -> Iterator[Chrome]:
    with browse(width=request.param) as found:
        yield found


def test_what_is_not_known_is_no_number(catalogue, browser, tmp_path):
    """A group without names of kernels or machines does not have none of them."""
    bare = {"signature": "panic: bare", "release": None, "machine": None}
    catalogue.add([made_row(300, **bare)])
    write_pages(catalogue, tmp_path / "site")
    browser.get((tmp_path / "site/index.html").as_uri())
    row = browser.find_element(By.XPATH, "//tr[contains(., 'panic: bare')]")
    cells = row.find_elements(By.CSS_SELECTOR, "td.few")
    assert [cell.text for cell in cells] == ["", ""]
    browser.find_element(By.LINK_TEXT, "panic: bare").click()
    [title] = browser.find_elements(By.XPATH, "//h2[contains(., 'panic: bare')]")
    assert title.text == "panic: bare"
    assert "not known" in browser.find_element(By.TAG_NAME, "main").text


def test_from_the_index_to_a_report(catalogue, browser, tmp_path):
    written = write_pages(catalogue, tmp_path / "site", reports=2)
    assert (written.groups, written.reports) == (2, 2)
    browser.get((tmp_path / "site/index.html").as_uri())
    text = browser.find_element(By.TAG_NAME, "main").text
    assert "oops in ext4_put < vfs_close" in text
    assert "document.title" in text  # As text.
    wide = "return document.documentElement.scrollWidth > innerWidth"
    assert not browser.execute_script(wide)
    shown = "return [...document.querySelectorAll('tbody tr')].filter(r => !r.hidden)"
    search = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    search.send_keys("ext4")
    assert len(browser.execute_script(shown)) == 1
    browser.find_element(By.LINK_TEXT, "oops in ext4_put < vfs_close").click()
    assert "Deaths 30" in browser.find_element(By.ID, "deaths").text.replace(
        "the latest 25 of ", ""
    )
    assert not browser.execute_script(wide)
    links = browser.find_elements(By.CSS_SELECTOR, "#deaths td a")
    assert len(links) == 2
    links[0].click()
    assert browser.title == "a report"
    assert browser.get_log("browser") == []


def test_a_hostile_kernel_changes_no_page(catalogue, browser, tmp_path):
    write_pages(catalogue, tmp_path / "site")
    for page in (tmp_path / "site").glob("groups/*.html"):
        browser.get(page.as_uri())
        assert browser.title.endswith("kmemdump catalogue")
        assert browser.execute_script("return document.scripts.length") == 1
    assert browser.get_log("browser") == []


def test_what_is_not_needed_any_more_is_removed(catalogue, tmp_path, capsys):
    site = tmp_path / "site"
    command = ["catalogue", "page", "--from", catalogue.place.url, "-o", str(site)]
    assert main(command) == 0
    (site / "groups/mine.html").write_text("")
    assert main([*command, "--groups", "1", "--reports", "0"]) == 0
    assert "1 groups, 0 reports" in capsys.readouterr().out
    names = [path.name for path in site.rglob("*.html")]
    assert len(names) == 3
    assert "mine.html" in names
    assert site.stat().st_mode & 0o077 == 0


def test_activity(tmp_path):
    catalogue = Catalogue(Place(str(tmp_path / "place")))
    old = made_row(500, died=START - timedelta(days=9000))
    catalogue.add([*(made_row(number) for number in range(100)), old])
    found = catalogue.ask(lambda it: find_activity(it, [made_row(0).signature]))
    assert found is not None
    assert found.unit == "6 hours"  # One wrong clock does not make the bars useless.
    assert sum(found.all) == 100
    assert found.all[-1] == 4  # Hours 96 to 99.
    assert found.end_of(29) == START + timedelta(hours=102)
    assert {name: sum(bars) for name, bars in found.groups.items()} == {
        "oops in ext4_put < vfs_close": 100
    }


def write(catalogue, site, *options: str) -> int:
    url = catalogue.place.url
    return main(["catalogue", "page", "--from", url, "-o", str(site), *options])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_links_of_another_user_are_not_followed(catalogue, tmp_path, capsys):
    """Root writes pages into a folder in which others can write."""
    site, mine, precious = (tmp_path / it for it in ("site", "mine", "precious"))
    page = mine / f"{'a' * 12}.html"
    mine.mkdir()
    page.write_text("kept")
    precious.write_text("kept")
    site.mkdir()
    links = [site / it for it in (".index.html.new", "index.html", "groups")]
    for link, target in zip(links, (precious, precious, mine), strict=True):
        link.symlink_to(target)
        os.chown(link, 1000, 1000, follow_symlinks=False)
    site.chmod(0o777)
    assert write(catalogue, site, "--force") == 3
    assert f"{site}/groups: groups is a link of user 1000" in capsys.readouterr().err
    links[-1].unlink()
    assert write(catalogue, site, "--force") == 0
    assert precious.read_text() == page.read_text() == "kept"
    assert not (site / "index.html").is_symlink()


def test_a_page_of_somebody_else_is_not_replaced(catalogue, tmp_path, capsys):
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<!DOCTYPE html><title>My own page</title>")
    assert write(catalogue, site) == 2
    assert "index.html: exists" in capsys.readouterr().err
    assert write(catalogue, site, "--force") == 0
    assert write(catalogue, site) == 0


def test_what_a_killed_writer_left_is_removed(catalogue, tmp_path):
    site = tmp_path / "site"
    assert write(catalogue, site) == 0
    old, new = (site / f"groups/.{'a' * 12}.html.new-{it}" for it in ("0" * 8, "1" * 8))
    for path, age in ((old, 7200), (new, 0)):
        path.write_text("half")
        os.utime(path, (time.time() - age,) * 2)
    assert write(catalogue, site) == 0
    assert (old.exists(), new.exists()) == (False, True)


def test_any_number_of_groups(catalogue, tmp_path):
    """What is shown takes memory; a hostile guest may die of any number of causes."""
    table = to_table([made_row(0)])
    count = 100_000
    columns = {
        name: table[name].combine_chunks().take([0] * count) for name in SCHEMA.names
    }
    numbers = pa.array(range(count)).cast(pa.string())
    columns["content"] = pc.utf8_lpad(numbers, 64, "0")
    for name in ("signature", "source", "machine", "release", "sentence"):
        columns[name] = pc.binary_join_element_wise(name, numbers, "")
    catalogue.add_table(pa.table(columns, SCHEMA))
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from kmemdump.catalogue.pages import write_pages\n"
        "from kmemdump.catalogue.place import Place\n"
        "from kmemdump.catalogue.store import Catalogue\n"
        "place, site = sys.argv[1:]\n"
        "write_pages(Catalogue(Place(place)), Path(site), groups=10)\n"
        # Not ru_maxrss, which counts what the test had before this program.
        "status = Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
    )
    command = [sys.executable, "-c", code, catalogue.place.url, str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300_000  # In kilobytes.


def test_a_page_that_another_host_forged_runs_nothing(catalogue, browser, tmp_path):
    """Whoever can write into a catalogue may have put anything there."""
    forged, real = made_row(400, signature="panic: a"), made_row(401, signature="oops")
    catalogue.add([forged, real])
    evil = "<script>document.title = 'owned'</script>"
    evil += "<img src=x onerror=\"document.title = 'owned'\">"
    catalogue.add_page(forged.content, f"<title>a report</title>{evil}".encode())
    log = tmp_path / "log"
    log.write_text("[    1.5] Kernel panic - not syncing: oh\n")
    assert main(["report", str(log), "--html", str(tmp_path / "page")]) == 0
    catalogue.add_page(real.content, (tmp_path / "page").read_bytes())
    write_pages(catalogue, tmp_path / "site")
    reports = tmp_path / "site/reports"
    browser.get((reports / f"{forged.content}.html").as_uri())
    assert browser.title == "a report"
    assert "script-src" in str(browser.get_log("browser"))
    browser.get((reports / f"{real.content}.html").as_uri())
    assert browser.find_element(By.ID, "theme").is_displayed()  # Its script runs.
    assert browser.execute_script("return document.compatMode") == "CSS1Compat"
    assert browser.get_log("browser") == []
