// The only script of a page: it looks for names in long tables. Without it they are whole, and the field is not there.
for (const search of document.querySelectorAll(".search")) {
  const [field, said] = [search.querySelector("input"), search.querySelector("output")];
  const rows = [...search.nextElementSibling.querySelectorAll("tbody tr")];
  const names = rows.map(row => [...row.querySelectorAll(".text")].map(cell => cell.textContent).join("\n").toLowerCase());
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    rows.forEach((row, i) => { row.hidden = !names[i].includes(wanted); });
    said.textContent = wanted && `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  });
  search.hidden = false;
}
