// Filters and sorting of the scoreboard; without this script it is a plain table.
document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("scoreboard-table");
  if (!root) return;
  const form = root.querySelector("form"), body = root.querySelector("tbody"), rows = [...body.rows];
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());

  const choose = () => {
    const text = form.elements.text.value.trim().toLowerCase();
    let left = 0;
    for (const row of rows) {
      const fits = ["part", "verdict", "kind"].every((name) => !form.elements[name].value || row.dataset[name] === form.elements[name].value);
      row.hidden = !(fits && row.cells[0].textContent.toLowerCase().includes(text));
      left += !row.hidden;
    }
    root.querySelector("output").textContent = `${left} of ${rows.length} claims`;
  };
  form.addEventListener("input", choose);
  form.addEventListener("reset", () => setTimeout(choose)); // the fields are empty only afterwards

  // numbers before words, nothing last, whichever way
  const order = (a, b, way) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return way * (Number.isNaN(x) ? a.localeCompare(b) : x - y);
  };
  root.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      const keyed = rows.map((row, place) => [row.cells[column].dataset.value, place, row]);
      keyed.sort(([a, i], [b, j]) => order(a, b, way) || i - j);
      body.append(...keyed.map(([, , row]) => row));
    });
  });
});
