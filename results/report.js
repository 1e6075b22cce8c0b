"use strict";

const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

/** An input above `place` that hides the `rows` which do not hold its words. */
function filter(place, rows, name) {
  const [label, field, told] = ["label", "input", "output"].map((tag) => document.createElement(tag));
  field.type = "search";
  field.placeholder = "words, such as a solver";
  label.className = "filter";
  label.append(`Filter ${name} `, field, told);
  place.before(label);
  field.addEventListener("input", () => {
    const wanted = words(field.value);
    for (const row of rows) row.hidden = !wanted.every((word) => row.textContent.toLowerCase().includes(word));
    told.value = wanted.length ? ` ${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
}

/** Sort rows by a column: the best first, and the other way round when it is asked for again. */
function sort(table, head, column, high) {
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
  const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
  const number = (row) => parseFloat(texts.get(row));
  const numeric = rows.some((row) => row.cells[column].tagName === "TD");
  const first = numeric && high ? "descending" : "ascending";
  const order = head.ariaSort === first ? (first === "ascending" ? "descending" : "ascending") : first;
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    if (!numeric) return sign * texts.get(a).localeCompare(texts.get(b));
    const [x, y] = [number(a), number(b)];
    return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
  });
  for (const one of table.querySelectorAll("th[aria-sort]")) one.removeAttribute("aria-sort");
  head.ariaSort = order;
  table.tBodies[0].append(...rows);
}

for (const box of document.querySelectorAll("#tables .scroll")) {
  const table = box.querySelector("table"), lines = [...table.tHead.rows];
  const stub = lines[0].querySelectorAll("th[rowspan]").length;
  const heads = lines.length > 1
    ? [...[...lines[0].cells].slice(0, stub), ...lines.at(-1).cells] : [...lines[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, head, column, box.dataset.best === "high"));
  });
  filter(box, [...table.tBodies].flatMap((body) => [...body.rows]), "rows");
}

/** Show the row that the address names: opened, with what it shares with the others. */
function show() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!row?.matches("details.row")) return;
  for (let one = row; one; one = one.parentElement.closest("details")) { one.open = true; one.hidden = false; }
  row.scrollIntoView();
  row.querySelector("summary").focus({ preventScroll: true });
}

for (const row of document.querySelectorAll("details.row")) {
  row.addEventListener("toggle", () => {
    if (!row.open || row.querySelector(".shared")) return;
    for (const list of [row.parentElement.querySelector(":scope > dl"), document.querySelector("#provenance > dl")]) {
      const copy = list.cloneNode(true);
      copy.className = "shared";
      row.append(copy);
    }
  });
}
const models = document.querySelector("#provenance > details");
if (models) filter(models, [...document.querySelectorAll("details.row")], "numbers");
addEventListener("hashchange", show);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#row-']");
  if (link?.getAttribute("href") === location.hash) show();
});
show();
