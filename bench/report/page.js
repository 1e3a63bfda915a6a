"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Hover, focus and arrow keys on the marks of a figure show the facts of its row.
  for (const figure of all("figure.chart")) {
    const tip = figure.querySelector(".tip");
    const hide = () => { tip.hidden = true; };
    const show = (mark) => {
      tip.replaceChildren(...mark.dataset.text.split("\n").map((line) => {
        const part = document.createElement("p");
        part.textContent = line;
        return part;
      }));
      tip.hidden = false;
      const box = mark.querySelector(".halo").getBoundingClientRect();
      const outer = figure.getBoundingClientRect();
      const left = box.left + box.width / 2 - outer.left - tip.offsetWidth / 2;
      const above = box.top - outer.top - tip.offsetHeight - 6;
      tip.style.left = `${Math.max(0, Math.min(left, outer.width - tip.offsetWidth))}px`;
      tip.style.top = `${above < -40 ? box.bottom - outer.top + 6 : above}px`;
    };
    for (const drawing of all(":scope > svg", figure)) {
      const marks = all(".mark", drawing);
      const byPlace = (mark) => mark.querySelector(".halo").cx.baseVal.value;
      for (const mark of marks) {
        const title = mark.querySelector("title");
        mark.dataset.text = title.textContent;
        mark.setAttribute("aria-label", title.textContent.replaceAll("\n", ", "));
        title.remove();  // the browser's own tooltip would cover ours
        mark.addEventListener("mouseenter", () => show(mark));
        mark.addEventListener("mouseleave", hide);
        mark.addEventListener("focus", () => show(mark));
        mark.addEventListener("blur", hide);
        mark.addEventListener("keydown", (event) => {
          const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
          if (event.key === "Escape") hide();
          if (!step) return;
          event.preventDefault();
          const shown = marks.filter((one) => !one.classList.contains("off")).sort((a, b) => byPlace(a) - byPlace(b));
          shown[(shown.indexOf(mark) + step + shown.length) % shown.length].focus();
        });
      }
    }
  }

  // Filters hide rows, marks and the sections of tables that have no row left.
  for (const form of all("form.filters")) {
    const chosen = all("select", form);
    const tagged = all("tbody tr[data-runtime], .mark, .front");
    const apply = () => {
      for (const one of tagged) {
        const off = chosen.some((select) => select.value && one.dataset[select.dataset.filter] !== select.value);
        one.classList.toggle("off", off);
        one.style.display = off ? "none" : "";
      }
      for (const table of all("table.sortable")) {
        const rows = all("tbody tr[data-runtime]", table);
        if (rows.length) table.closest("section").hidden = rows.every((row) => row.classList.contains("off"));
      }
      const rows = tagged.filter((one) => one.tagName === "TR" && !one.closest("[aria-label=details]"));  // they repeat
      form.querySelector("output").textContent =
        `${rows.filter((row) => !row.classList.contains("off")).length} of ${rows.length} rows`;
    };
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", apply);
    apply();
  }

  // Headings sort their table; blank cells stay last.
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    const headings = all("thead th", table);
    headings.forEach((heading, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const up = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((one) => one.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        const blank = (cell) => cell.textContent === "–";
        const number = (cell) => cell.dataset.sort ?? parseFloat(cell.textContent.replaceAll(",", "").replace("−", "-"));
        const compare = (a, b) => (heading.classList.contains("number") && number(a) - number(b))
          || a.textContent.localeCompare(b.textContent, "en", { numeric: true });
        const rows = [...body.rows].map((row) => [row.cells[place], row]);
        rows.sort(([a], [b]) => blank(a) - blank(b) || (blank(a) ? 0 : compare(a, b) * (up ? 1 : -1)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
})();
