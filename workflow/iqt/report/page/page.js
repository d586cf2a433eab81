// Tables sort by a click, or Enter, on a heading: numbers by size, text by alphabet, and what is missing last, both ways.
// A number may have a sign, thousands' commas and a bound (<0.001 comes just before 0.001); what follows it is not read.
const numberOf = text => {
  const [, bound, sign, size] = text.trim().match(/^([<>≤≥]?)\s*([+\-−]?)\s*(inf(?:inity)?\b|∞|(?:[\d,]+\.?\d*|\.\d+)(?:e[+-]?\d+)?)/i) ?? [];
  if (size === undefined) return NaN;
  const value = (/^(inf|∞)/i.test(size) ? Infinity : parseFloat(size.replaceAll(",", ""))) * (sign && sign !== "+" ? -1 : 1);
  return bound ? value + ("<≤".includes(bound) ? -1 : 1) * Math.abs(value) * 1e-9 : value;
};
const missing = text => /^(|[–—-]|n\/?a|nan|none)$/i.test(text.trim());
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const value = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent.trim(); };
    const text = head.classList.contains("text") || column === 0;
    const lacks = row => missing(value(row)) || !text && Number.isNaN(numberOf(value(row)));
    const order = text
      ? (a, b) => value(a).localeCompare(value(b))
      : (a, b) => { const [x, y] = [numberOf(value(a)), numberOf(value(b))]; return x === y ? 0 : x < y ? -1 : 1; };
    const sort = () => {
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : !text;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => lacks(a) - lacks(b) || (lacks(a) ? 0 : (down ? -1 : 1) * order(a, b)));
      table.tBodies[0].append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}
