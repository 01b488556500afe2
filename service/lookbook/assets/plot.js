/** The map of articles as SVG: clusters, the style's path through them, and where it would point at another time. */

import { articleLink } from "./cards.js";
import { s } from "./dom.js";
import { day } from "./words.js";

const SIZE = 1000;
const REACH = 1.12; // coordinates that are drawn: −REACH … REACH; what lies beyond is drawn at the border
const HUES = 7;
const NEAR = 0.06;

const clamp = (value) => Math.max(-REACH, Math.min(REACH, value));
const px = ({ x, y }) => [((clamp(x) + REACH) / (2 * REACH)) * SIZE, ((REACH - clamp(y)) / (2 * REACH)) * SIZE];
const at = (point) =>
  px(point)
    .map((value) => value.toFixed(1))
    .join(" ");

/** The cluster whose middle is nearest to a point. */
export function nearest(clusters, { x, y }) {
  const distance = (cluster) => Math.hypot(cluster.x - x, cluster.y - y);
  return clusters.reduce((best, one) => (best && distance(best) <= distance(one) ? best : one), null);
}

/** What a point of a path is called. */
export function pointName({ article, timestamp }, place, points) {
  if (article) return `After ${article.title}, ${day(timestamp)}`;
  return place === points.length - 1 ? "Now" : "Before any purchase";
}

/**
 * Draws `map` and the `points` of a path. `tell(point)` hears which point or article of the map is hovered or focused.
 * Returns {element, lean(point, name)}: `lean` draws where the style would point at another time; null takes it away.
 */
export function plot(map, points, tell) {
  const ahead = s("g", { class: "ahead" });
  const steps = points.map((point, place) => step(point, place, points, tell));
  const element = s(
    "svg",
    {
      class: "plot",
      viewBox: `0 0 ${SIZE} ${SIZE}`,
      role: "group",
      "aria-label":
        "Map of articles and the path of the style. Arrow keys move along the path; the table below says the same.",
    },
    arrowhead(),
    s("g", { class: "dots", "aria-hidden": "true" }, map.articles.map(dot)),
    s("g", { class: "labels", "aria-hidden": "true" }, apart(map.clusters).map(label)),
    s(
      "g",
      { class: "path", "aria-hidden": "true" },
      points.slice(1).map((point, place) => segment(points[place], point, place, points.length)),
    ),
    ahead,
    s("g", { class: "steps" }, steps),
  );
  rove(element, steps);
  hover(element, map.articles, tell);
  const lean = (point, name) => ahead.replaceChildren(...(point ? leaning(points.at(-1), point, name) : []));
  return { element, lean };
}

function arrowhead() {
  const marker = s(
    "marker",
    {
      id: "arrow",
      viewBox: "0 0 10 10",
      refX: 9,
      refY: 5,
      markerWidth: 7,
      markerHeight: 7,
      orient: "auto-start-reverse",
    },
    s("path", { d: "M0 0 10 5 0 10z" }),
  );
  return s("defs", null, marker);
}

function dot(article) {
  const [cx, cy] = px(article);
  return s("circle", { cx, cy, r: 4, class: `hue-${article.cluster % HUES}` });
}

function label({ label, x, y, articles }) {
  return s("text", { x, y, "text-anchor": "middle" }, label, s("title", null, `${articles} articles`));
}

/** Clusters with pixel places at which their labels do not lie on each other. */
function apart(clusters) {
  const placed = [];
  for (const cluster of [...clusters].sort((one, other) => other.y - one.y)) {
    const [middle, top] = px(cluster);
    const half = Math.min(cluster.label.length * 8, SIZE / 2 - 10);
    const x = Math.max(half + 8, Math.min(SIZE - half - 8, middle));
    let y = Math.max(36, top);
    for (const other of placed)
      if (Math.abs(other.x - x) < half + other.half && Math.abs(other.y - y) < 40) y = other.y + 40;
    placed.push({ ...cluster, x, y: Math.min(y, SIZE - 12), half });
  }
  return placed;
}

/** One part of the path; earlier ones are fainter, the last has the arrow. */
function segment(from, to, place, n) {
  const last = place === n - 2;
  return s("path", {
    d: `M${at(from)}L${at(to)}`,
    "stroke-opacity": (0.3 + (0.7 * (place + 1)) / (n - 1)).toFixed(2),
    "marker-end": last ? "url(#arrow)" : null,
  });
}

function leaning(from, to, name) {
  const [cx, cy] = px(to);
  return [
    s("path", { d: `M${at(from)}L${at(to)}`, "marker-end": "url(#arrow)" }),
    s("circle", { cx, cy, r: 12 }),
    s("text", { x: Math.min(cx, SIZE - 130), y: cy < SIZE - 60 ? cy + 46 : cy - 24, "text-anchor": "middle" }, name),
  ];
}

function step(point, place, points, tell) {
  const [cx, cy] = px(point);
  const last = place === points.length - 1;
  const name = pointName(point, place, points);
  const heard = () => tell({ ...point, name });
  const marks = [
    s("circle", { class: "reach", cx, cy, r: 22 }),
    s("circle", { class: "mark", cx, cy, r: last ? 15 : 8 }),
  ];
  if (last)
    marks.push(
      s("text", { x: cx, y: cy > 70 ? cy - 26 : cy + 46, "text-anchor": "middle", "aria-hidden": "true" }, "now"),
    );
  const attributes = {
    class: last ? "step last" : "step",
    "data-step": place,
    tabindex: last ? 0 : -1,
    "aria-label": name,
    onfocus: heard,
    onpointerenter: heard,
  };
  return point.article
    ? s("a", { href: articleLink(point.article.article_id), ...attributes }, marks)
    : s("g", { role: "img", ...attributes }, marks);
}

/** One point of the path is reached with Tab, all others from there with arrow keys. */
function rove(element, steps) {
  const moves = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity };
  element.addEventListener("keydown", (event) => {
    const place = steps.indexOf(document.activeElement);
    if (!(event.key in moves) || place < 0) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(steps.length - 1, place + moves[event.key]));
    steps[place].setAttribute("tabindex", -1);
    steps[next].setAttribute("tabindex", 0);
    steps[next].focus();
  });
}

/** Names the article of the map that is nearest to the pointer, and opens it when pressed. */
function hover(element, articles, tell) {
  const under = (event) => {
    const box = element.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 2 * REACH - REACH;
    const y = REACH - ((event.clientY - box.top) / box.height) * 2 * REACH;
    const found = nearest(articles, { x, y });
    return found && Math.hypot(found.x - x, found.y - y) < NEAR ? found : null;
  };
  const onPath = (event) => event.target.closest(".step");
  element.addEventListener("pointermove", (event) => {
    const article = onPath(event) ? null : under(event);
    element.classList.toggle("pointing", Boolean(article));
    if (article) tell({ ...article, article, name: article.title });
  });
  element.addEventListener("click", (event) => {
    const article = onPath(event) ? null : under(event);
    if (article) location.hash = articleLink(article.article_id);
  });
}
