/** "What if it were December?": recommendations and style for another month, against those of now. */

import * as api from "./api.js";
import { Grid, thumbnails } from "./cards.js";
import { fill, h } from "./dom.js";
import { moved, summary } from "./moved.js";
import { degraded, empty, failed, skeletonCards } from "./states.js";
import { month, ms } from "./words.js";

const SHOWN = 24;
const MONTHS = 12;
const MIDDLE = 15; // day of the month that is asked for
const PAUSE = 250; // ms

/** The middle of the month `ahead` of `now`, in Unix seconds. */
function middleOf(now, ahead) {
  const date = new Date(now * 1000);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + ahead, MIDDLE, 12) / 1000;
}

/** The slider and its grid. `lean(point, name)` hears where the style would point; null for now. */
export function season(customerId, now, lean) {
  const grid = new Grid("Recommendations at that time");
  const banner = h("div");
  const status = h("p", { class: "moved", id: "season-moved", role: "status" });
  const body = h("div", { class: "grid-box" }, skeletonCards());
  const gone = h("div");
  const output = h("output", { for: "month", id: "month-name" }, "now");
  const slider = h("input", { type: "range", id: "month", min: 0, max: MONTHS, step: 1, value: 0, oninput: slid });
  const december = h(
    "button",
    { type: "button", onclick: () => ((slider.value = 12 - 1 - new Date(now * 1000).getUTCMonth() || MONTHS), slid()) },
    "December",
  );
  const back = h("button", { type: "button", onclick: () => ((slider.value = 0), slid()) }, "Now");
  const state = { turn: 0, timer: 0 };

  const name = () => (Number(slider.value) ? month(middleOf(now, Number(slider.value))) : "now");

  function slid() {
    output.textContent = name();
    slider.setAttribute("aria-valuetext", name());
    clearTimeout(state.timer);
    state.timer = setTimeout(ask, PAUSE);
  }

  async function ask() {
    const turn = ++state.turn;
    const ahead = Number(slider.value);
    body.setAttribute("aria-busy", "true");
    try {
      const answers = await asked(customerId, ahead ? middleOf(now, ahead) : null);
      if (turn === state.turn && body.isConnected) show(ahead, ...answers);
    } catch (failure) {
      const notice = failed(failure, ask);
      if (turn !== state.turn) return;
      fill(banner, notice);
      if (!grid.element.isConnected) fill(body);
    }
    if (turn === state.turn) body.removeAttribute("aria-busy");
  }

  function show(ahead, present, then, path, took) {
    const ids = ({ articles }) => articles.map(({ article_id }) => article_id);
    const moves = ahead ? moved(ids(present), ids(then)) : null;
    fill(banner, then.degraded ? degraded() : null);
    fill(body, then.articles.length ? grid.element : empty("Nothing to recommend", "No article is in stock."));
    grid.show(then.articles, moves);
    fill(
      status,
      ahead
        ? `${name()} against now: ${summary(moves)}. Answered in ${ms(took)}.`
        : "Now. Move the slider, and see what another month would change.",
    );
    fill(
      gone,
      moves?.gone.length
        ? [
            h("h3", null, "Among the first only now"),
            thumbnails(
              "Gone",
              present.articles.filter(({ article_id }) => moves.gone.includes(article_id)),
            ),
          ]
        : null,
    );
    lean(ahead ? path.points.at(-1) : null, name());
    stock(grid, then);
  }

  setTimeout(ask);
  slider.setAttribute("aria-valuetext", "now");
  return [
    h(
      "p",
      { class: "small" },
      "By style alone, so that nothing but the time differs: what sells and what was written belong to now. Nothing is stored.",
    ),
    h(
      "div",
      { class: "slider" },
      h("label", { for: "month" }, "The time is ", output),
      slider,
      h("div", { class: "row" }, back, december),
    ),
    banner,
    status,
    body,
    gone,
  ];
}

const WISH = { n: SHOWN, strategy: "style" };

/** Both lists are by style and asked for at once, so that nothing but the time lies between them. */
async function asked(customerId, at) {
  if (at === null) {
    const now = await api.recommendations(customerId, WISH);
    return [now, now, null, 0];
  }
  const start = performance.now();
  const then = async () => [await api.recommendations(customerId, { ...WISH, at }), performance.now() - start];
  const [now, [answer, took], path] = await Promise.all([
    api.recommendations(customerId, WISH),
    then(),
    api.path(customerId, at),
  ]);
  return [now, answer, path, took];
}

async function stock(grid, { articles }) {
  const known = await api.cards(articles.map(({ article_id }) => article_id)).catch(() => null);
  if (known) grid.stock(known.articles);
}
