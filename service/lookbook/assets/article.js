/** One article: its picture and attributes, its stock, what is similar, and where it stands for who is chosen. */

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { picture } from "./pictures.js";
import { chosen } from "./shop.js";
import { similar, standing } from "./standing.js";
import { block, failed, load } from "./states.js";
import { deed, moment, price, stock } from "./words.js";

/** The page of one article. */
export function articleView(articleId) {
  const box = h("div", { id: "article-box" });
  load(
    box,
    () => api.article(articleId),
    (known) => page(articleId, known),
    block,
  );
  return { heading: "Article", nodes: [box] };
}

function page(articleId, known) {
  const record = known.article ?? { article_id: articleId };
  const heading = document.querySelector("#main h1");
  if (record.title) heading.textContent = record.title;
  document.title = `${record.title ?? articleId} · Articles · Modiste lookbook`;
  const gone = known.live
    ? null
    : h(
        "p",
        { class: "banner" },
        h("strong", null, "Deleted. "),
        "It is recommended no more; histories that hold it keep it.",
      );
  const where = known.live ? standing(record) : { element: null };
  return [
    gone,
    h(
      "div",
      { class: "article" },
      picture(articleId, record.title ?? ""),
      h(
        "div",
        null,
        attributes(record, known),
        known.live ? [stockForm(articleId, known, where.again), deeds(record, where.again)] : null,
      ),
    ),
    where.element,
    known.live ? similar(articleId) : null,
  ];
}

function attributes(record, { created_at }) {
  const { materials, tags } = record;
  const pairs = [
    ["Id", record.article_id],
    ["Category", record.category],
    ["Brand", record.brand],
    ["Colour", record.colour],
    ["Price", record.price && price(record.price)],
    ["Size", record.size],
    ["Gender", record.gender],
    ["Season", record.season],
    ["Occasion", record.occasion],
    ["Holiday", record.holiday],
    [
      "Materials",
      Object.entries(materials ?? {})
        .map(([fibre, share]) => `${share} % ${fibre}`)
        .join(", "),
    ],
    ["Tags", tags?.join(", ")],
    ["In the catalogue since", created_at && moment(created_at)],
    ["Description", record.description],
  ].filter(([, value]) => value);
  return h(
    "dl",
    { class: "pairs" },
    pairs.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
  );
}

/** `changed`: called once a level is stored. */
function stockForm(articleId, known, changed) {
  const input = h("input", {
    type: "number",
    id: "quantity",
    min: 0,
    step: 1,
    required: true,
    value: known.quantity ?? "",
  });
  const status = h("p", { id: "stock-status", class: "small", role: "status" }, `Now: ${stock(known)}.`);
  const problem = h("div");
  async function save(event) {
    event?.preventDefault();
    fill(problem);
    const quantity = Number(input.value);
    try {
      await api.setStock(articleId, quantity);
      status.textContent = `Saved: ${stock({ quantity, in_stock: quantity > 0 })}. It counts from the next answer on.`;
      changed();
    } catch (failure) {
      fill(problem, failed(failure, save));
    }
  }
  return h(
    "form",
    { class: "stock-form", id: "stock", onsubmit: save },
    h(
      "div",
      { class: "field" },
      h("label", { for: "quantity" }, "Stock"),
      h("div", { class: "row" }, input, h("button", { type: "submit" }, "Save stock")),
    ),
    status,
    problem,
  );
}

/** What the chosen customer may do with the article here. `changed`: called once an event is stored. */
function deeds(record, changed) {
  const customerId = chosen.customer;
  if (!customerId)
    return h(
      "p",
      { class: "small" },
      "Choose a customer above, to click or buy it as them and see where it stands for them.",
    );
  const status = h("p", { class: "small", id: "deed-status", role: "status" });
  const problem = h("div");
  const tell = (type) => async () => {
    fill(problem);
    try {
      await api.tell({ type, customer_id: customerId, article_id: record.article_id });
      fill(
        status,
        `${customerId} ${deed(type)} it. `,
        h("a", { href: `#/customers/${encodeURIComponent(customerId)}` }, "See what that changed"),
      );
      changed();
    } catch (failure) {
      fill(problem, failed(failure, tell(type)));
    }
  };
  const buttons = [
    ["Click", "click"],
    ["Buy", "purchase"],
  ].map(([name, type]) =>
    h("button", { type: "button", "data-action": name.toLowerCase(), onclick: tell(type) }, `${name} as ${customerId}`),
  );
  return h("div", { class: "deeds-here" }, h("div", { class: "row" }, buttons), status, problem);
}
