"use strict";

// Series: a legend button shows or hides what carries its number, in every figure.
function showSeries(button, shown) {
    button.setAttribute("aria-pressed", String(shown));
    for (const part of document.querySelectorAll(`svg [data-series="${button.dataset.series}"]`))
        part.classList.toggle("off", !shown);
}

const seriesButtons = document.querySelectorAll("button[data-series]");
for (const button of seriesButtons)
    button.addEventListener("click", () =>
        showSeries(button, button.getAttribute("aria-pressed") !== "true"));
for (const button of document.querySelectorAll("button[data-all]"))
    button.addEventListener("click", () =>
        seriesButtons.forEach((one) => showSeries(one, button.dataset.all === "true")));

// Tables: a button in a heading sorts by its column; cells without a value come last.
function compareCells(a, b, sign) {
    const x = a.dataset.value ?? a.textContent;
    const y = b.dataset.value ?? b.textContent;
    if (x === "" || y === "")
        return (x === "") - (y === "");
    const numbers = a.dataset.value !== undefined && b.dataset.value !== undefined;
    return sign * (numbers ? Number(x) - Number(y) : x.localeCompare(y));
}

function sortTable(heading) {
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th[aria-sort]"))
        other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    rows.sort((a, b) => compareCells(a.cells[column], b.cells[column], sign));
    body.append(...rows);
}

for (const button of document.querySelectorAll("th button"))
    button.addEventListener("click", () => sortTable(button.closest("th")));
