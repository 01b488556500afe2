/** What becomes of an article: where it stands for who is chosen, and what is similar to it. */

import * as api from "./api.js";
import { Grid } from "./cards.js";
import { h } from "./dom.js";
import { chosen } from "./shop.js";
import { empty, lines, load, part, skeletonCards } from "./states.js";
import { ms, ordinal } from "./words.js";

const STANDING = 200; // most places that are looked at

/** Where an article stands in the chosen customer's recommendations, among its category; `again` asks anew. */
export function standing(record) {
  const customerId = chosen.customer;
  if (!customerId || !record.category) return { element: null, again: () => {} };
  const box = h("div", { "aria-live": "polite" });
  const wish = { n: STANDING, category: record.category, exclude_purchased: false };
  const ask = async () => {
    const start = performance.now();
    return { ...(await api.recommendations(customerId, wish)), took: performance.now() - start };
  };
  const again = () => load(box, ask, (answer) => place(record, answer, customerId), lines);
  again();
  return { element: part("standing", `Where it stands for ${customerId}`, box), again };
}

function place({ article_id, category }, { articles, took }, customerId) {
  const found = articles.findIndex((one) => one.article_id === article_id) + 1;
  const among = articles.length < STANDING ? `all ${articles.length} in stock` : `the first ${STANDING}`;
  if (!found)
    return h(
      "p",
      { "data-place": 0 },
      `Not among ${among} of “${category}” that ${customerId} is recommended. It may be out of stock.`,
    );
  return h(
    "p",
    { "data-place": found },
    h("b", { class: "figure" }, ordinal(found)),
    ` among ${among} of “${category}” that ${customerId} is recommended; answered in ${ms(took)}.`,
  );
}

/** Articles that are similar to one. */
export function similar(articleId) {
  const box = h("div");
  const show = ({ articles }) => {
    if (!articles.length) return empty("Nothing is similar", "No other article is in stock.");
    const grid = new Grid("Similar articles");
    grid.show(articles);
    api.cards(articles.map(({ article_id }) => article_id)).then(
      ({ articles: known }) => grid.stock(known),
      () => {},
    );
    return grid.element;
  };
  load(box, () => api.similar(articleId), show, skeletonCards);
  return part("similar", "Similar articles", box);
}
