// The scoreboard's list: a click on the head of a column sorts by it, another one the other way round.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sorted")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent;
      const order = (a, b) => (text(a) === "") - (text(b) === "") // what was not run stays at the end
        || (up ? 1 : -1) * text(a).localeCompare(text(b), "en", { numeric: true });
      body.append(...[...body.rows].sort(order));
    }));
  }
});
