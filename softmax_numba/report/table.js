// Sorting and filtering of the table of all cells. Without it the table stands there whole, in the order of the runs.
"use strict";
(() => {
  const table = document.getElementById("table"), form = document.getElementById("filters");
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const count = form.querySelector("output"), choices = [...form.querySelectorAll("select")];

  // Numbers by their exact value, words by the alphabet; a cell without a number is last either way.
  const keyOf = (row, column, words) => {
    const cell = row.cells[column];
    if (words) return cell.textContent.trim();
    return "key" in cell.dataset ? Number(cell.dataset.key) : null;
  };
  const sort = (column, direction) => {
    const words = heads[column].classList.contains("words");
    const keyed = rows.map((row, place) => ({ row, place, key: keyOf(row, column, words) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
      return direction * (words ? a.key.localeCompare(b.key) : a.key - b.key) || a.place - b.place;
    });
    body.append(...keyed.map((item) => item.row));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending" ? -1 : 1));
  });

  const filter = () => {
    const parts = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase() + " " + row.dataset.cell.toLowerCase();
      const fits = choices.every((choice) => !choice.value || row.dataset[choice.name] === choice.value);
      row.hidden = !(fits && parts.every((part) => text.includes(part)));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} cells`;
  };
  for (const choice of choices) {
    for (const value of new Set(rows.map((row) => row.dataset[choice.name]))) choice.add(new Option(value, value));
    choice.parentElement.hidden = choice.options.length < 3;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
