/** The last calls that the page made, at its foot: method, path, status and how long each took. */

import { calls } from "./api.js";
import { fill, h } from "./dom.js";
import { ms } from "./words.js";

const KEPT = 12;

/** Builds the log into `box`. */
export function log(box) {
  const kept = [];
  const latest = h("span", { class: "latest" }, "no call yet");
  const rows = h("tbody");
  const columns = ["Call", "Status", "Time"].map((name) => h("th", { scope: "col" }, name));
  const table = h(
    "table",
    null,
    h("caption", { class: "unseen" }, "Last calls, newest first"),
    h("thead", null, h("tr", null, columns)),
    rows,
  );
  fill(
    box,
    h(
      "details",
      null,
      h("summary", null, h("span", { class: "name" }, "Calls"), " ", latest),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Last calls" }, table),
    ),
  );
  calls.addEventListener("call", ({ detail }) => {
    kept.unshift(detail);
    kept.length = Math.min(kept.length, KEPT);
    latest.textContent = `${detail.method} ${short(detail.path)} · ${word(detail.status)} · ${ms(detail.ms)}`;
    fill(rows, kept.map(row));
  });
}

function row({ method, path, status, ms: took }) {
  const failed = status === 0 || status >= 400;
  const address = path.replace(
    /([?&])(id=[^&]*)(&id=[^&]*)+/,
    (all, before, first) => `${before}${first}&… (${all.split("id=").length - 1} ids)`,
  );
  return h(
    "tr",
    { "data-status": status, class: failed ? "failed" : null },
    h("td", null, h("code", null, `${method} ${address}`)),
    h("td", null, word(status)),
    h("td", null, ms(took)),
  );
}

const word = (status) => (status === 0 ? "no answer" : String(status));

const short = (path) => decoded(path.split("?")[0]);

function decoded(path) {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}
