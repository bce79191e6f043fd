// SPDX-License-Identifier: GPL-2.0-or-later
"use strict";
// Without this script, everything is there to read; only the controls are not.
const find = (id) => document.getElementById(id);
document.querySelectorAll("form.controls").forEach((form) => {
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
});

// Theme: that of the system, until somebody chooses the other.
const theme = find("theme");
theme.hidden = false;
const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  name();
});
name();

// The log.
const records = find("records");
if (records) {
  const items = [...records.children].map((item) => {
    const text = item.querySelector(".text");
    return { item, text, words: text.textContent, lower: text.textContent.toLowerCase() };
  });
  const search = find("search"), level = find("level"), from = find("from");
  const highlight = (entry, wanted) => {
    entry.text.textContent = entry.words;
    if (!wanted) return;
    // Made of text nodes only: what a kernel logged is never parsed as HTML.
    const parts = [];
    let start = 0;
    // Lower case may have another length than the text itself, for some letters.
    const same = entry.lower.length === entry.words.length;
    for (let at = entry.lower.indexOf(wanted); same && at >= 0; at = entry.lower.indexOf(wanted, start)) {
      const mark = document.createElement("mark");
      mark.textContent = entry.words.slice(at, at + wanted.length);
      parts.push(entry.words.slice(start, at), mark);
      start = at + wanted.length;
    }
    parts.push(entry.words.slice(start));
    entry.text.replaceChildren(...parts);
  };
  const filter = () => {
    const wanted = search.value.toLowerCase();
    let shown = 0;
    for (const entry of items) {
      const { item, lower } = entry;
      const visible = Number(item.dataset.level) <= Number(level.value) &&
        (!from.value || item.dataset.from === from.value) && lower.includes(wanted);
      item.hidden = !visible;
      if (visible) {
        shown += 1;
        if (wanted || item.querySelector("mark")) highlight(entry, wanted);
      }
    }
    find("shown").textContent = `${shown} of ${items.length} records`;
  };
  search.addEventListener("input", filter);
  [level, from].forEach((control) => control.addEventListener("change", filter));
  filter();
  records.scrollTop = records.scrollHeight;
  // A link to a record shows it, whatever is being searched for.
  const follow = () => {
    const target = /^#r\d+$/.test(location.hash) && document.querySelector(location.hash);
    if (!target) return;
    search.value = from.value = "";
    level.value = "7";
    filter();
    target.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", follow);
  follow();
}

// Tables: sorted by a click on a column's head, filtered by words.
const value = (row, column, kind) => {
  const text = row.cells[column].textContent.trim();
  return kind === "number" ? Number(text.replaceAll(",", "") || -1) : text.toLowerCase();
};
document.querySelectorAll("th button").forEach((button) => {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table");
    const order = head.ariaSort === "ascending" ? "descending" : "ascending";
    table.querySelectorAll("th").forEach((other) => { other.ariaSort = "none"; });
    head.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => value(row, head.cellIndex, head.dataset.kind);
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => (a < b ? -sign : a > b ? sign : 0));
    table.tBodies[0].replaceChildren(...rows.map(([, row]) => row));
  });
});
document.querySelectorAll("input[data-table]").forEach((input) => {
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of find(input.dataset.table).tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
});

// The map.
const cells = find("cells");
if (cells) {
  const tell = (event) => {
    const title = event.target.querySelector?.("title");
    find("cell").textContent = title ? title.textContent : "";
  };
  cells.addEventListener("pointerover", tell);
  cells.addEventListener("click", tell);
  find("areas").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const chosen = button.ariaPressed !== "true";
    find("areas").querySelectorAll("button").forEach((other) => { other.ariaPressed = "false"; });
    button.ariaPressed = String(chosen);
    cells.classList.toggle("pale", chosen);
    cells.querySelectorAll("rect[data-area]").forEach((cell) => {
      cell.classList.toggle("chosen", chosen && cell.dataset.area === button.dataset.area);
    });
  });
}

// Copying. The clipboard may be forbidden to a page from a file: then a selection is used.
const copySelected = (text) => {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
};
document.querySelectorAll("[data-copy]").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = find(button.dataset.copy).textContent;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      done = copySelected(text);
    }
    const was = button.textContent;
    button.textContent = done ? "Copied" : "Could not copy";
    setTimeout(() => { button.textContent = was; }, 1500);
  });
});
document.querySelectorAll(".buttons").forEach((part) => { part.hidden = false; });

// On paper, nothing can be opened.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((item) => { item.open = true; });
});
addEventListener("afterprint", () => {
  closed.forEach((item) => { item.open = false; });
});
