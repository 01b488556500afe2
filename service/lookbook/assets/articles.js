/** The catalogue: find an article, or add one and see it recommended at once. */

import * as api from "./api.js";
import { adding } from "./adding.js";
import { Grid, articleLink } from "./cards.js";
import { field, h, select } from "./dom.js";
import { newcomer } from "./picker.js";
import { chosen, shop } from "./shop.js";
import { block, empty, load, part, skeletonCards } from "./states.js";
import { many } from "./words.js";

const SHOWN = 24;

/** The page of all articles. */
export function articlesView() {
  const finding = h("div");
  const add = h("div");
  load(finding, shop, finder, () => [block(), skeletonCards()]);
  load(add, shop, adding, block);
  return {
    heading: "Articles",
    nodes: [part("find", "Find an article", finding), part("add", "Add an article", add)],
  };
}

function finder(known) {
  const box = h("div", { id: "found" });
  const words = h("input", {
    type: "search",
    id: "words",
    autocomplete: "off",
    maxlength: 200,
    disabled: !known.generating,
  });
  const category = select(known.categories, "All", { onchange: find });
  const colour = select(known.colours, "All", { onchange: find });
  const number = h("input", { type: "text", id: "article-id", autocomplete: "off", maxlength: 128 });
  const open = (event) => {
    event.preventDefault();
    if (number.value.trim()) location.hash = articleLink(number.value.trim());
  };

  /** By the words' meaning where there are any, else what sells best. */
  function ask() {
    const wish = { n: SHOWN, category: category.value, colour: colour.value };
    const q = words.value.trim();
    if (q) return api.search(q, wish);
    return api.recommendations(chosen.customer ?? newcomer(), {
      ...wish,
      strategy: "trending",
      exclude_purchased: false,
    });
  }

  function find(event) {
    if (event?.type === "submit") event.preventDefault();
    load(box, ask, grid, skeletonCards);
  }

  find();
  return [
    h(
      "p",
      { class: "small" },
      `${many(known.articles, "article")} in stock.`,
      known.generating
        ? " Words are searched by what they mean."
        : " Search by words needs a bundle with a generating half; these are what sells best.",
    ),
    h(
      "div",
      { class: "row" },
      known.generating
        ? h(
            "form",
            { role: "search", onsubmit: find, class: "row" },
            field("Words", words),
            h("button", { type: "submit" }, "Search"),
          )
        : null,
      field("Category", category),
      field("Colour", colour),
      h("form", { onsubmit: open, class: "row" }, field("Article id", number), h("button", { type: "submit" }, "Open")),
    ),
    box,
  ];
}

function grid({ articles }) {
  if (!articles.length) return empty("Nothing found", "No article in stock passes these filters.");
  const shown = new Grid("Articles found");
  shown.show(articles.map(({ sources, ...article }) => article));
  api.cards(articles.map(({ article_id }) => article_id)).then(
    ({ articles: known }) => shown.stock(known),
    () => {},
  );
  return shown.element;
}
