/** A customer's taste over time: the path of their style among the articles, and what another month would bring. */

import * as api from "./api.js";
import { articleLink } from "./cards.js";
import { fill, h } from "./dom.js";
import { picture } from "./pictures.js";
import { nearest, plot, pointName } from "./plot.js";
import { season } from "./season.js";
import { shop } from "./shop.js";
import { block, empty, load, part, skeletonCards } from "./states.js";
import { day, many } from "./words.js";

/** The page of one customer's taste. */
export function tasteView(customerId) {
  const path = h("div", { id: "path-box" });
  const other = h("div", { id: "season-box" });
  const drawn = { lean: () => {} };
  load(
    path,
    () => Promise.all([api.map(), api.path(customerId)]),
    ([map, { points }]) => pathOf(map, points, drawn),
    block,
  );
  load(
    other,
    shop,
    ({ now }) => season(customerId, now, (point, name) => drawn.lean(point, name)),
    () => skeletonCards(),
  );
  return {
    heading: customerId,
    nodes: [
      h("p", { class: "kicker" }, "Taste of"),
      part("path", "Where their style went", path),
      part("season", "What if it were December?", other),
    ],
  };
}

function pathOf(map, points, drawn) {
  if (!map.articles.length)
    return empty("No article is in stock", "The map is drawn from articles in stock. Add some under Articles.");
  const readout = h("div", { class: "readout", id: "readout" });
  const tell = (point) => fill(readout, told(point, map.clusters));
  const { element, lean } = plot(map, points, tell);
  drawn.lean = lean;
  tell({ ...points.at(-1), name: "Now" });
  const purchases = points.filter(({ article }) => article).length;
  return [
    h("p", { class: "small" }, about(map, purchases)),
    h("div", { class: "map" }, h("figure", null, element), readout),
    h(
      "details",
      { id: "path-table" },
      h("summary", null, "The path as a table"),
      h(
        "div",
        { class: "scroll", role: "region", tabindex: 0, "aria-label": "The path as a table" },
        table(points, map.clusters),
      ),
    ),
  ];
}

function about({ explained, articles }, purchases) {
  const share = Math.round(100 * (explained[0] + explained[1]));
  const path = purchases
    ? `The line is where the style pointed after each of the last ${many(purchases, "purchase")}.`
    : "Nothing was bought yet, so the style points where it does for everybody.";
  return `${many(articles.length, "article")} by the direction of their Fashion DNA, of which these two directions hold ${share} %. ${path}`;
}

function told({ article, timestamp, name, ...point }, clusters) {
  const area = nearest(clusters, point);
  return [
    article
      ? h(
          "a",
          { href: articleLink(article.article_id), tabindex: -1, "aria-hidden": "true" },
          picture(article.article_id),
        )
      : h("div", { class: "blank" }),
    h("p", null, h("b", null, article?.title ?? name)),
    article && timestamp ? h("p", { class: "small" }, `Bought on ${day(timestamp)}`) : null,
    area ? h("p", { class: "small" }, "Nearest to ", h("i", null, area.label)) : null,
  ];
}

function table(points, clusters) {
  const columns = ["Step", "After", "Nearest to", "x", "y"].map((name) => h("th", { scope: "col" }, name));
  return h(
    "table",
    null,
    h("caption", null, "Where the style pointed, oldest first"),
    h("thead", null, h("tr", null, columns)),
    h(
      "tbody",
      null,
      points.map((point, place) => row(point, place, points, clusters)),
    ),
  );
}

function row(point, place, points, clusters) {
  const { article, x, y } = point;
  const after = article
    ? h("a", { href: articleLink(article.article_id) }, article.title)
    : pointName(point, place, points);
  const when = article ? `, ${day(point.timestamp)}` : "";
  return h(
    "tr",
    null,
    h("th", { scope: "row" }, place),
    h("td", null, after, when),
    h("td", null, nearest(clusters, point)?.label ?? "–"),
    h("td", null, x.toFixed(2)),
    h("td", null, y.toFixed(2)),
  );
}
