/** Tables that scroll within themselves where the page is narrow. */

import { h } from "./dom.js";

/** Rows of cells, the first of which names the row. */
export function table(caption, columns, rows) {
  const row = ([first, ...rest]) =>
    h(
      "tr",
      null,
      h("th", { scope: "row" }, first),
      rest.map((value) => h("td", null, value)),
    );
  const heads = columns.map((name) => h("th", { scope: "col" }, name));
  return h(
    "div",
    { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    h(
      "table",
      null,
      h("caption", { class: "unseen" }, caption),
      h("thead", null, h("tr", null, heads)),
      h("tbody", null, rows.map(row)),
    ),
  );
}
