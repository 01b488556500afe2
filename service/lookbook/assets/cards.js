/** A grid of articles that shows what moved: each keeps its element, slides to its new place, and bears a badge. */

import { fill, h, unseen } from "./dom.js";
import { badge } from "./moved.js";
import { picture } from "./pictures.js";
import { SOURCES, price, stock } from "./words.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");

export const articleLink = (articleId) => `#/articles/${encodeURIComponent(articleId)}`;

/** One grid. `actions`: [{name, act(article)}], the buttons below each article. */
export class Grid {
  constructor(label, actions = []) {
    this.element = h("ol", { class: "cards", "aria-label": label });
    this.actions = actions;
    this.cards = new Map(); // article id → Card
  }

  /** Shows `articles` in this order, with badges where `moves` (see moved.js) is given. */
  show(articles, moves = null) {
    const before = this.#places();
    const focused = document.activeElement?.dataset?.action ? document.activeElement : null;
    const shown = articles.map((article) => this.cards.get(article.article_id) ?? new Card(article, this.actions));
    shown.forEach((card, place) => card.update(articles[place], place + 1, moves ? moves.by.get(card.id) : 0));
    this.cards = new Map(shown.map((card) => [card.id, card]));
    fill(
      this.element,
      shown.map((card) => card.element),
    );
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    if (!still.matches) this.#slide(before);
  }

  /** Writes the stock of ArticleCards under the articles that are shown. */
  stock(known) {
    for (const article of known) this.cards.get(article.article_id)?.stock(article);
  }

  #places() {
    return new Map([...this.cards].map(([articleId, { element }]) => [articleId, element.getBoundingClientRect()]));
  }

  #slide(before) {
    for (const [articleId, { element }] of this.cards) {
      const from = before.get(articleId);
      const to = element.getBoundingClientRect();
      if (!from) element.animate({ opacity: [0, 1] }, { duration: 400, easing: "ease-out" });
      else if (from.left !== to.left || from.top !== to.top) {
        const shift = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
        element.animate({ transform: [shift, "none"] }, { duration: 450, easing: "cubic-bezier(.2, .7, .2, 1)" });
      }
    }
  }
}

class Card {
  constructor(article, actions) {
    this.id = article.article_id;
    this.badge = h("span", { class: "badge", hidden: true });
    this.place = h("span", { class: "place" });
    this.level = h("span", { class: "stock" });
    this.sources = h("ul", { class: "sources", "aria-label": "Where it came from" });
    const buttons = actions.map(({ name, act }) => this.#button(name, article, () => act(article)));
    this.element = h(
      "li",
      { class: "card", "data-article": this.id },
      h(
        "a",
        { class: "to-article", href: articleLink(this.id) },
        h("span", { class: "frame" }, picture(this.id), this.badge),
        h("span", { class: "title" }, article.title),
      ),
      h("p", { class: "facts" }, this.place, h("span", { class: "price" }, price(article.price)), this.level),
      this.sources,
      buttons.length ? h("div", { class: "actions" }, buttons) : null,
    );
  }

  update(article, place, by) {
    this.place.textContent = `${place}.`;
    this.#mark(badge(by));
    fill(this.sources, Object.entries(article.sources ?? {}).map(source));
    this.sources.hidden = !this.sources.children.length;
  }

  stock(article) {
    this.level.textContent = stock(article);
  }

  #mark(mark) {
    this.badge.hidden = mark === null;
    if (mark === null) return this.element.removeAttribute("data-moved");
    const [text, told, kind] = mark;
    this.element.dataset.moved = kind;
    fill(this.badge, told ? [h("span", { "aria-hidden": "true" }, text), unseen(`${told}: `)] : text);
  }

  #button(name, article, act) {
    return h(
      "button",
      { type: "button", "data-action": name.toLowerCase(), onclick: act },
      name,
      unseen(` ${article.title}`),
    );
  }
}

function source([name, place]) {
  return h("li", { "data-source": name }, `${SOURCES[name] ?? name} `, h("b", null, place));
}

/** A small row of pictures, each a link to its article. */
export function thumbnails(label, articles) {
  const one = ({ article_id, title }) =>
    h(
      "li",
      { "data-article": article_id },
      h("a", { href: articleLink(article_id), title }, picture(article_id, title)),
    );
  return h("ul", { class: "thumbnails", "aria-label": label }, articles.map(one));
}
