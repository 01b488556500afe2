/** A customer's recommendations, which change with every event, search and wish, and say what moved. */

import * as api from "./api.js";
import { Grid, thumbnails } from "./cards.js";
import { fill, h } from "./dom.js";
import { filters } from "./filters.js";
import { moved, summary } from "./moved.js";
import { degraded, empty, failed, skeletonCards } from "./states.js";
import { deed, ms } from "./words.js";

const SHOWN = 24;
const PATIENCE = 8_000; // ms that a fresh generation may take, as long as the service waits for it

const HINT = "Click or buy an article as this customer, and see what moves.";

const GENERATION = {
  fresh: "What the language model wrote takes part, and reflects all that the customer did.",
  stale: "What the language model wrote takes part, though it was written before the latest event.",
  none: "Nothing that a language model wrote takes part.",
};

export class Recommendations {
  /** `shop`: what there is to wish for. `changed`: called once an event is stored. */
  constructor(customerId, shop, changed) {
    Object.assign(this, { customerId, shop, changed, wish: { strategy: "blended" }, search: "", shown: null, turn: 0 });
    const act = (type) => (article) => this.happened({ type, article });
    this.grid = new Grid("Recommendations", [
      { name: "Click", act: act("click") },
      { name: "Buy", act: act("purchase") },
    ]);
    this.problem = h("div");
    this.banner = h("div");
    this.status = h("p", { id: "moved", class: "moved", role: "status", tabindex: -1 });
    this.note = h("p", { class: "small", id: "how" });
    this.body = h("div", { class: "grid-box" });
    this.gone = h("div", { id: "gone" });
    const form = filters(shop, (wish) => this.#ask({ wish: { ...wish } }));
    this.element = h(
      "div",
      null,
      h("div", { class: "asking" }, this.#searchBox(), form),
      this.problem,
      this.banner,
      this.status,
      this.body,
      this.gone,
      this.note,
    );
    this.#ask({ first: true });
  }

  /** Stores an event of the customer, and shows what it changes. */
  async happened({ type, article, query }) {
    const what = article ? { article_id: article.article_id } : { query };
    fill(this.problem);
    const words = `${deed(type)} ${article ? article.title : `“${query}”`}`;
    try {
      await api.tell({ type, customer_id: this.customerId, ...what });
    } catch (failure) {
      return this.#fail(failure, () => this.happened({ type, article, query }));
    }
    await Promise.all([this.changed(), this.#ask({ why: `${words[0].toUpperCase()}${words.slice(1)}`, follow: true })]);
  }

  #searchBox() {
    const input = h("input", { type: "search", id: "search", autocomplete: "off", maxlength: 200 });
    const submit = (event) => {
      event.preventDefault();
      this.search = input.value.trim();
      if (this.search) this.happened({ type: "search", query: this.search });
      else this.#ask({ why: "Without a search" });
    };
    const hint = this.shop.generating
      ? "Stored as a search of theirs; the list leans to it. Empty: without a search."
      : "Stored as a search of theirs. Without a generating half it moves nothing.";
    return h(
      "form",
      { class: "searching", role: "search", onsubmit: submit },
      h(
        "div",
        { class: "field" },
        h("label", { for: "search" }, "Search as this customer"),
        h("div", { class: "row" }, input, h("button", { type: "submit" }, "Search")),
        h("small", null, hint),
      ),
    );
  }

  /** Asks for the list as it is wished for. `follow`: ask again once the language model wrote something about it. */
  async #ask({ wish = this.wish, why = "", first = false, follow = false }) {
    this.wish = wish;
    fill(this.problem);
    const turn = ++this.turn;
    const before = this.shown;
    if (first) fill(this.body, skeletonCards());
    this.body.setAttribute("aria-busy", "true");
    try {
      await this.#show(turn, before, why);
      if (turn === this.turn && this.#mayFollow(follow)) await this.#follow(turn, before, why);
    } catch (failure) {
      if (turn === this.turn) this.#fail(failure, () => this.#ask({ why, first: !this.shown, follow }));
    }
  }

  #mayFollow(follow) {
    const written = this.shop.generating && ["blended", "generated"].includes(this.wish.strategy);
    return written && this.readable && this.freshness !== "fresh" && (follow || this.wish.strategy === "generated");
  }

  async #follow(turn, before, why) {
    this.status.append(" The language model is reading …");
    await this.#show(turn, before, why, PATIENCE);
    if (turn === this.turn)
      this.status.append(
        this.freshness === "fresh"
          ? " The language model has written about it."
          : " The language model has not written in time.",
      );
  }

  /** Asks once and shows the answer against `before`, unless something newer was asked for meanwhile. */
  async #show(turn, before, why, wait = 0) {
    const start = performance.now();
    const answer = await api.recommendations(this.customerId, {
      n: SHOWN,
      ...this.wish,
      query: this.search,
      explain: true,
      wait_ms: wait || null,
    });
    if (turn !== this.turn || !this.element.isConnected) return;
    this.#draw(answer, before, why, performance.now() - start);
    const known = await api.cards(answer.articles.map(({ article_id }) => article_id)).catch(() => null);
    if (known && turn === this.turn) this.grid.stock(known.articles);
  }

  #draw(answer, before, why, took) {
    const ids = answer.articles.map(({ article_id }) => article_id);
    const moves =
      before &&
      moved(
        before.map(({ article_id }) => article_id),
        ids,
      );
    const gone = moves ? before.filter(({ article_id }) => moves.gone.includes(article_id)) : [];
    const lost = this.element.contains(document.activeElement) && document.activeElement.dataset.action;
    this.freshness = answer.generation;
    this.readable = !answer.explain?.cold || answer.explain.session_events > 0;
    this.body.removeAttribute("aria-busy");
    fill(this.banner, answer.degraded ? degraded() : null);
    fill(
      this.body,
      ids.length
        ? this.grid.element
        : empty("Nothing fits", "No article in stock passes these filters. Widen the price, or choose all categories."),
    );
    this.grid.show(answer.articles, moves);
    fill(this.status, moves ? `${why ? `${why}: ` : ""}${summary(moves)}.` : HINT);
    fill(this.note, how(answer, took, this.shop.generating));
    fill(
      this.gone,
      gone.length ? [h("h3", null, `No longer among the first ${SHOWN}`), thumbnails("Gone", gone)] : null,
    );
    if (lost && document.activeElement === document.body) this.status.focus({ preventScroll: true });
    this.shown = answer.articles;
  }

  #fail(failure, again) {
    const box = failed(failure, () => {
      fill(this.problem);
      this.status.focus({ preventScroll: true });
      again();
    });
    fill(this.problem, box);
    this.body.removeAttribute("aria-busy");
    if (!this.shown) fill(this.body);
  }
}

/** What the answer rests on. */
function how({ explain, generation }, took, generating) {
  const known = explain && (explain.cold ? "No purchase is known" : `${explain.purchases} bought articles are known`);
  const session = explain?.session_events
    ? `, and what they clicked and searched for lately (${explain.session_events})${explain.session_counts ? ", which counts" : ""}`
    : "";
  return [
    known && `${known}${session}. `,
    generating && `${GENERATION[generation]} `,
    `Answered in ${ms(took)}. Below each article: the lists that named it, and its place there.`,
  ];
}
