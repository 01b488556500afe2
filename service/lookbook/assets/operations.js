/** How the service does: bundle, latency by stage, requests, queue; asked again every few seconds while it is seen. */

import * as api from "./api.js";
import { bundle, metrics } from "./bundle.js";
import { fill, h } from "./dom.js";
import { latency } from "./latency.js";
import { reportPart } from "./report.js";
import { block, empty, failed, part } from "./states.js";
import { table } from "./tables.js";
import { count, ms } from "./words.js";

const PERIOD = 5_000; // ms

/** The operator's page. */
export function operationsView() {
  const [head, figures, report, live] = [h("div"), h("div"), h("div"), latency()];
  live.element.hidden = true;
  const box = h("div", { id: "figures", "aria-busy": "true" }, fill(head, block()), live.element, figures);
  watch({ box, head, figures, report, live });
  return {
    heading: "Operations",
    nodes: [
      h(
        "p",
        { class: "lead" },
        "Counted since the service started; brought up to date every 5 seconds while this page is seen.",
      ),
      box,
      report,
    ],
  };
}

/** Asks now and every PERIOD until `box` has left the page; not while the page is hidden. */
function watch({ box, head, figures, report, live }) {
  let [before, asking] = [null, false];
  async function ask() {
    if (asking) return; // a reading counts once
    asking = true;
    try {
      const answer = await api.operations(before?.mark);
      if (!box.isConnected) return;
      keepingPlace(box, () => {
        fill(head, summary(answer, before));
        fill(figures, details(answer));
      });
      live.element.hidden = false;
      if (!report.firstChild) fill(report, reportPart(answer.report));
      await live.add(answer, before);
      before = answer;
    } catch (failure) {
      fill(head, failed(failure, ask));
      fill(figures);
    } finally {
      asking = false;
    }
    box.removeAttribute("aria-busy");
  }
  const timer = setInterval(() => {
    if (!box.isConnected) {
      clearInterval(timer);
      live.end();
    } else if (!document.hidden) ask();
  }, PERIOD);
  setTimeout(ask);
}

/** Draws anew, and leaves focus and scrolled tables where they were. */
function keepingPlace(box, draw) {
  const named = (name) => [...box.querySelectorAll(".scroll")].find((region) => region.ariaLabel === name);
  const scrolled = [...box.querySelectorAll(".scroll")].map(({ ariaLabel, scrollLeft }) => [ariaLabel, scrollLeft]);
  const focused = box.contains(document.activeElement) && document.activeElement.ariaLabel;
  draw();
  for (const [name, left] of scrolled) if (left && named(name)) named(name).scrollLeft = left;
  if (focused) named(focused)?.focus({ preventScroll: true });
}

function summary(now, before) {
  return [
    now.degraded || Object.values(now.store_failures).some(Boolean) ? trouble(now) : null,
    h(
      "ul",
      { class: "tiles", "aria-label": "Figures" },
      tiles(now, before).map(([name, value, more]) =>
        h(
          "li",
          null,
          h("span", { class: "name" }, name),
          h("b", { class: "figure" }, value),
          h("span", { class: "small" }, more),
        ),
      ),
    ),
  ];
}

function details(now) {
  return [
    part("stages", "Latency of recommendations by stage", stages(now)),
    h(
      "div",
      { class: "pair" },
      part("requests", "Requests", requests(now.requests)),
      part("bundle", "Live bundle", bundle(now.bundle)),
    ),
    h(
      "div",
      { class: "pair" },
      part("generations", "Generations", outcomes(now)),
      part("metrics", "How it was evaluated", metrics(now.bundle.metrics)),
    ),
  ];
}

function trouble({ degraded, store_failures }) {
  const failures = Object.entries(store_failures)
    .filter(([, times]) => times)
    .map(([reason, n]) => `${count(n)} × ${reason}`)
    .join(", ");
  return h(
    "p",
    { class: "banner", id: "trouble" },
    h("strong", null, `${count(degraded)} degraded answers. `),
    failures ? `Redis failed: ${failures}. ` : "",
    "Since the start; it need not be so now.",
  );
}

function tiles(now, before) {
  const asked = ({ requests }) => requests.reduce((sum, { count: n }) => sum + n, 0);
  const seconds = before ? now.now - before.now : 0;
  const rate = seconds > 0 ? `${((asked(now) - asked(before)) / seconds).toFixed(1)} a second` : " ";
  const { queue, events, articles, total } = now;
  return [
    ["Requests", count(asked(now)), rate],
    ["Recommendation, p50", ms(total.p50_ms), `of ${count(total.count)}`],
    ["Recommendation, p99", ms(total.p99_ms), " "],
    [
      "Queue",
      queue ? count(queue.waiting) : "–",
      queue ? `waiting; ${count(queue.in_hand)} in hand` : "nothing is generated",
    ],
    ["Degraded", count(now.degraded), "answers from memory"],
    ["Events", count(events.accepted), `${count(events.duplicate)} repeated, ${count(events.rejected)} rejected`],
    ["Articles", count(articles.in_stock), `in stock, of ${count(articles.all)}`],
    ["Workers", count(now.workers), " "],
  ];
}

/** p50 and p99 of each stage as bars on one scale, which the figures beside them say, too. */
function stages({ stages, total }) {
  const rows = [...stages.filter(({ stage }) => stage !== "total"), { stage: "total", ...total }].filter(
    ({ count: n }) => n,
  );
  if (!rows.length) return empty("No recommendation yet", "Open a customer, and come back.");
  const longest = Math.max(...rows.map(({ p99_ms }) => p99_ms ?? 0));
  return table(
    "Latency by stage",
    ["Stage", "p50", "p99", "p50 (full) and p99 (outline)"],
    rows.map(({ stage, p50_ms, p99_ms }) => [stage, ms(p50_ms), ms(p99_ms), bars(p50_ms, p99_ms, longest)]),
  );
}

function bars(p50, p99, longest) {
  const bar = (kind, value) => {
    const element = h("span", { class: kind, hidden: !value });
    element.style.width = `${(100 * value) / longest}%`;
    return element;
  };
  return h("span", { class: "bars", "aria-hidden": "true" }, bar("p99", p99), bar("p50", p50));
}

function requests(all) {
  if (!all.length) return empty("No request yet", "Open a customer, and come back.");
  const rows = [...all]
    .sort((one, other) => other.count - one.count)
    .map(({ route, status, count: n }) => [h("code", null, route), status, count(n)]);
  return table("Requests by route and status", ["Route", "Status", "Count"], rows);
}

function outcomes({ generations, queue }) {
  const rows = Object.entries(generations);
  if (!rows.length)
    return empty(
      "Nothing was generated",
      queue
        ? "The language model writes after events and requests."
        : "The live bundle has no generating half, or nothing generates.",
    );
  return table(
    "Generations by what became of them",
    ["Outcome", "Count"],
    rows.map(([name, n]) => [name.replaceAll("_", " "), count(n)]),
  );
}
