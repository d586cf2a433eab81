// Tables sort by a click, or Enter, on a heading; numbers first by size, text by alphabet.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const value = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent.trim(); };
    const text = head.classList.contains("text") || column === 0;
    const sort = () => {
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : !text;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const number = row => { const n = parseFloat(value(row).replaceAll(",", "")); return Number.isNaN(n) ? -Infinity : n; };
      const rows = [...table.tBodies[0].rows].sort((a, b) => sign * (text ? value(a).localeCompare(value(b)) : number(a) - number(b)));
      table.tBodies[0].append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}
