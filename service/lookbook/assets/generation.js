/** What the language model reads about a customer, what it wrote, and how the articles that follow are found. */

import * as api from "./api.js";
import { articleLink } from "./cards.js";
import { h } from "./dom.js";
import { picture } from "./pictures.js";
import { empty, lines, load, part } from "./states.js";
import { count, deed, many, moment } from "./words.js";

const PATIENCE = 10_000; // ms

/** The page of one customer's generation. */
export function generationView(customerId) {
  const box = h("div", { id: "generation-box" });
  const input = h("input", { type: "search", id: "generation-query", autocomplete: "off", maxlength: 200 });
  const query = () => input.value.trim();
  const again = (wait) =>
    load(
      box,
      () => asked(customerId, query(), wait),
      (answer) => panel(answer, () => again(true)),
      lines,
    );
  const submit = (event) => (event.preventDefault(), again(false));
  again(false);
  return {
    heading: customerId,
    nodes: [
      h("p", { class: "kicker" }, "Generation for"),
      h(
        "form",
        { class: "searching", onsubmit: submit },
        h(
          "div",
          { class: "field" },
          h("label", { for: "generation-query" }, "If they searched for"),
          h("div", { class: "row" }, input, h("button", { type: "submit" }, "Show")),
          h("small", null, "Nothing is stored. Empty: as they are."),
        ),
      ),
      box,
    ],
  };
}

/** What there is to show; `wait`: give the model time to write first. */
async function asked(customerId, query, wait) {
  if (wait) await api.recommendations(customerId, { n: 1, query, wait_ms: PATIENCE });
  return api.generation(customerId, query);
}

function panel(answer, write) {
  if (!answer.available)
    return empty("Nothing is generated here", answer.reason ?? "The live bundle has no generating half.");
  return [
    part("read", "1. The session that is read", session(answer.session)),
    part("prompt", "2. The prompt", prompt(answer)),
    part("written", "3. What the language model wrote", written(answer, write)),
    part("mixup", "4. Two retrievals, and their mixup", mixup(answer)),
  ];
}

function session(events) {
  if (!events.length)
    return empty(
      "Nothing to read",
      "The model reads what a customer bought, clicked and searched for. Do something under Customers first.",
    );
  const one = ({ type, timestamp, query, article }) => [
    article ? picture(article.article_id) : h("span", { class: "quote", "aria-hidden": "true" }, "“ ”"),
    h("span", { class: "deed" }, deed(type)),
    article ? h("a", { href: articleLink(article.article_id) }, article.title) : h("span", null, `“${query}”`),
    h("time", { class: "small" }, moment(timestamp)),
  ];
  return h(
    "ol",
    { class: "timeline wide", "aria-label": "Session, oldest first" },
    events.map((event) => h("li", null, one(event))),
  );
}

function prompt({ prompt, tokens, candidates }) {
  if (prompt === null) return empty("No prompt", "There is nothing yet that a prompt could tell.");
  return [
    h(
      "p",
      { class: "small" },
      tokens === null ? null : `${many(tokens, "token")}; `,
      `${many(candidates.length, "candidate")} to choose from.`,
    ),
    h("pre", { id: "prompt-text", class: "scroll", tabindex: 0, role: "region", "aria-label": "The prompt" }, prompt),
    candidates.length
      ? h("details", null, h("summary", null, "Candidates"), h("p", { class: "ids" }, candidates.join(" · ")))
      : null,
  ];
}

function written({ written, prompt, session }, write) {
  const something = prompt !== null && session.length > 0; // a query alone is never written about
  const button = h(
    "button",
    { type: "button", id: "write", class: written ? null : "primary", onclick: write },
    written ? "Let it write again" : "Let it write",
  );
  if (written === null)
    return [
      empty(
        "Nothing is written yet",
        something
          ? "It writes after an event or a request; give it up to ten seconds."
          : "It writes about what a customer did. Until then, words that are searched for stand in for it.",
      ),
      something ? button : null,
    ];
  return [
    h("blockquote", { id: "written-text" }, written.text),
    h(
      "dl",
      { class: "pairs" },
      [
        ["Article id", written.article_id],
        ["Title", written.title],
        ["Freshness", written.freshness],
        ["Written", moment(written.written_at)],
        ["It took", `${written.seconds.toFixed(2)} s`],
        ["Actions read", count(written.session_length)],
      ].map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
    ),
    written.freshness === "fresh" ? null : button,
  ];
}

function mixup({ by_id, by_title, mixup, n }) {
  if (!mixup.length)
    return empty(
      "Nothing is retrieved",
      "Two lists follow from what the model writes: by the id's embedding and by the title's.",
    );
  const lists = h(
    "div",
    { class: "three" },
    list(
      "by-id",
      "By the id’s embedding",
      by_id.map((one) => ({ ...one, from: "id" })),
    ),
    list("merged", "Mixup", mixup),
    list(
      "by-title",
      "By the title’s embedding",
      by_title.map((one) => ({ ...one, from: "title" })),
    ),
  );
  point(lists);
  return [
    h(
      "p",
      { class: "small" },
      `Mixup takes the first ${n} by the id, then goes on in the list by the title behind as many places; no article comes twice.`,
    ),
    lists,
  ];
}

function list(kind, title, entries) {
  const row = ({ place, article, from }) =>
    h(
      "li",
      { "data-article": article.article_id, "data-from": from },
      h("span", { class: "place" }, `${place}.`),
      picture(article.article_id),
      h("a", { href: articleLink(article.article_id) }, article.title),
      kind === "merged" ? h("span", { class: "from" }, `from ${from}`) : null,
    );
  return h(
    "div",
    { class: `retrieved ${kind}`, id: `list-${kind}` },
    h("h3", null, title),
    entries.length ? h("ol", null, entries.map(row)) : h("p", { class: "small" }, "Empty: the id is of no article."),
  );
}

/** Marks an article in all lists while it is pointed at or focused in one. */
function point(lists) {
  const mark = (event) => {
    const pointed = event.target.closest("[data-article]")?.dataset.article;
    for (const row of lists.querySelectorAll("[data-article]"))
      row.classList.toggle("marked", row.dataset.article === pointed);
  };
  lists.addEventListener("pointerover", mark);
  lists.addEventListener("focusin", mark);
}
