/** Which view stands on the page: hash routes, titles, focus, and who is chosen between views. */

import { articleView } from "./article.js";
import { articlesView } from "./articles.js";
import { chooseView, customerView } from "./customer.js";
import { fill, h } from "./dom.js";
import { generationView } from "./generation.js";
import { log } from "./log.js";
import { operationsView } from "./operations.js";
import { picker } from "./picker.js";
import { chosen } from "./shop.js";
import { tasteView } from "./taste.js";

/** Name in the hash → [title, view of nobody or nothing in particular, view of one]. A view: (id) → {heading, nodes}. */
const VIEWS = {
  customers: ["Customers", () => chooseView("customers"), customerView],
  taste: ["Taste", () => chooseView("taste"), tasteView],
  generation: ["Generation", () => chooseView("generation"), generationView],
  articles: ["Articles", articlesView, articleView],
  operations: ["Operations", operationsView, operationsView],
};
const OF_CUSTOMERS = ["customers", "taste", "generation"];

const main = document.getElementById("main");
let started = false;

function go(view, id) {
  location.hash = `#/${view}/${encodeURIComponent(id)}`;
}

/** [view, id or null] of the address. */
function route() {
  const [view, id = ""] = location.hash.replace(/^#\/?/, "").split("/");
  return [view in VIEWS ? view : "customers", decoded(id) || null];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  const [view, id] = route();
  if (OF_CUSTOMERS.includes(view) && id) chosen.customer = id;
  showChosen(chosen.customer);
  const [name, ofNobody, ofOne] = VIEWS[view];
  const { heading, nodes } = id ? ofOne(id) : ofNobody();
  const title = h("h1", { tabindex: -1 }, heading);
  fill(main, h("div", { class: "view", "data-view": view }, title, nodes));
  document.title = `${heading === name ? name : `${heading} · ${name}`} · Modiste lookbook`;
  link(view);
  scrollTo(0, 0);
  if (started) title.focus({ preventScroll: true });
  started = true;
}

/** Links of the navigation: to whoever is chosen, and which one is shown. */
function link(view) {
  for (const anchor of document.querySelectorAll("nav.views a")) {
    const name = anchor.dataset.view;
    const id = OF_CUSTOMERS.includes(name) && chosen.customer;
    anchor.href = id ? `#/${name}/${encodeURIComponent(id)}` : `#/${name}`;
    if (name === view) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

const showChosen = picker(document.getElementById("picker"), (id) => {
  const [view] = route();
  go(OF_CUSTOMERS.includes(view) ? view : "customers", id);
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.querySelector("h1").focus();
});
addEventListener("hashchange", show);
log(document.getElementById("calls"));
show();
