/** What a customer bought, returned and did lately, as rows of pictures. */

import { articleLink, thumbnails } from "./cards.js";
import { h, unseen } from "./dom.js";
import { picture } from "./pictures.js";
import { empty } from "./states.js";
import { day, deed, many, moment } from "./words.js";

const SHOWN = 60;

/** The past of a customer. `happened({type, article})`: one of their purchases is to be returned. */
export function timeline({ history, returned, session }, happened) {
  const giveBack = (article) => happened({ type: "return", article });
  return [
    history.length ? [note(history), purchases(history.slice(-SHOWN), giveBack)] : nothingBought(),
    h("div", { class: "asides" }, returned.length ? returns(returned) : null, session.length ? lately(session) : null),
  ];
}

function returns(returned) {
  const title = h("h3", null, "Returned, and not recommended again");
  return h("div", { class: "aside", id: "returned" }, title, thumbnails("Returned", returned));
}

function lately(session) {
  const deeds = h("ol", { class: "deeds", reversed: true }, session.slice(-6).reverse().map(act));
  return h("div", { class: "aside", id: "session" }, h("h3", null, "Lately"), deeds);
}

function nothingBought() {
  return empty(
    "Nothing bought yet",
    "Recommendations for somebody new begin with what sells. Press ",
    h("b", null, "Click"),
    " or ",
    h("b", null, "Buy"),
    " below an article, and see the list turn to their taste.",
  );
}

function note(history) {
  const last = history.at(-1);
  const left = history.length > SHOWN ? `; the last ${SHOWN} are shown` : "";
  return h(
    "p",
    { class: "small" },
    `${many(history.length, "purchase")}, the latest on ${day(last.timestamp)}${left}. Oldest first.`,
  );
}

function purchases(history, giveBack) {
  const row = h(
    "ol",
    { class: "timeline", "aria-label": "Purchases, oldest first" },
    history.map((purchase, place) => bought(purchase, history[place - 1], giveBack)),
  );
  requestAnimationFrame(() => (row.scrollLeft = row.scrollWidth));
  return row;
}

function bought({ article, timestamp }, before, giveBack) {
  const date = day(timestamp);
  const repeated = before && day(before.timestamp) === date;
  return h(
    "li",
    { "data-article": article.article_id },
    h("time", { datetime: new Date(timestamp * 1000).toISOString(), class: repeated ? "repeated" : null }, date),
    h("a", { href: articleLink(article.article_id), title: article.title }, picture(article.article_id, article.title)),
    h(
      "button",
      { type: "button", class: "quiet", "data-action": "return", onclick: () => giveBack(article) },
      "Return",
      unseen(` ${article.title}`),
    ),
  );
}

function act({ type, timestamp, query, article }) {
  const what = article ? h("a", { href: articleLink(article.article_id) }, article.title) : `“${query}”`;
  return h(
    "li",
    null,
    h("span", { class: "deed" }, deed(type)),
    " ",
    what,
    " ",
    h("time", { class: "small" }, moment(timestamp)),
  );
}
