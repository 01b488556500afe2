/** One customer: what they bought and did lately, and what they are recommended now; and the choice of one. */

import * as api from "./api.js";
import { thumbnails } from "./cards.js";
import { fill, h } from "./dom.js";
import { timeline } from "./history.js";
import { newcomer } from "./picker.js";
import { Recommendations } from "./recommendations.js";
import { shop } from "./shop.js";
import { asking, block, empty, failed, keepFocus, lines, load, part, skeletonCards, strip } from "./states.js";

const LEADS = {
  customers:
    "Choose a customer, and see what they bought, what they are recommended, and how that changes with all that they do.",
  taste: "Choose a customer, and see which way their taste went from purchase to purchase.",
  generation: "Choose a customer, and see what the language model reads about them and what it writes.",
};

/** Whose page is it to be? `view`: where the choice leads to. */
export function chooseView(view) {
  const to = (customerId) => `#/${view}/${encodeURIComponent(customerId)}`;
  const some = h("div");
  const selling = h("div");
  const someCustomers = ({ customers }) => {
    if (!customers.length)
      return empty(
        "No customer is known yet",
        "Whoever is chosen is somebody new; the first purchase makes them known.",
      );
    return h(
      "ul",
      { class: "names", id: "some-customers" },
      customers.map((id) => h("li", null, h("a", { href: to(id) }, id))),
    );
  };
  const fresh = newcomer();
  load(some, () => api.customers("", 24), someCustomers, lines);
  load(
    selling,
    () => api.recommendations(fresh, { n: 10, strategy: "trending" }),
    ({ articles }) => thumbnails("What sells best now", articles),
    strip,
  );
  return {
    heading: view === "customers" ? "Whose lookbook?" : `Whose ${view}?`,
    nodes: [
      h("p", { class: "lead" }, LEADS[view]),
      h("p", null, h("a", { class: "button primary", href: to(fresh) }, "Begin as someone new")),
      part("selling", "What sells best now", selling),
      part("known-customers", "Some who are known", some),
    ],
  };
}

/** The page of one customer. */
export function customerView(customerId) {
  const past = h("div", { id: "past" });
  const now = h("div", { id: "now" });
  const drawPast = (known) => timeline(known, (deed) => list?.happened(deed));
  const loadPast = () => load(past, () => api.customer(customerId), drawPast, strip);
  let list = null;

  /** Brings the past up to date without a skeleton in between. */
  async function refreshPast() {
    const wanted = asking(past);
    try {
      const known = await api.customer(customerId);
      if (!wanted()) return;
      const held = past.contains(document.activeElement);
      fill(past, drawPast(known));
      if (held) keepFocus(past);
    } catch (failure) {
      const notice = failed(failure, loadPast);
      if (!wanted()) return;
      fill(past, notice);
    }
    past.removeAttribute("aria-busy"); // the first answer may still be awaited, and is dropped
  }

  loadPast();
  load(
    now,
    shop,
    (known) => (list = new Recommendations(customerId, known, refreshPast)).element,
    () => [block(), skeletonCards()],
  );
  return {
    heading: customerId,
    nodes: [
      h("p", { class: "kicker" }, "Customer"),
      part("history", "What they did", past),
      part("recommendations", "What they are recommended", now),
    ],
  };
}
