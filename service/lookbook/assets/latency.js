/** How long recommendations took while the page is seen, reading by reading, as a chart of uPlot's. */

import { Failure } from "./api.js";
import { fill, h } from "./dom.js";
import { empty, part } from "./states.js";
import { clock, many, ms } from "./words.js";

const KEPT = 180; // readings: a quarter of an hour at one every five seconds
const HEIGHT = 220; // CSS pixels
const SPAN = 60; // seconds that are seen at least
const ASSETS = "/lookbook/assets/";

let library = null;

/** uPlot, fetched when the first chart is drawn: no other view needs it. */
function charts() {
  library ??= new Promise((resolve, reject) => {
    const script = h("script", {
      src: `${ASSETS}uplot.js`,
      onload: () => resolve(globalThis.uPlot),
      onerror: () => reject(new Failure(0, "network", "uplot.js cannot be fetched")),
    });
    document.head.append(h("link", { rel: "stylesheet", href: `${ASSETS}uplot.css` }), script);
  });
  library.catch(() => (library = null));
  return library;
}

/**
 * A part of the page; `add(answer, before)`, which draws what was counted between two answers of the service; and
 * `end()`, once the part has left the page.
 */
export function latency() {
  const readings = [[], [], []]; // times, p50, p99
  const canvas = h("div", { class: "chart", role: "img", hidden: true });
  const words = h("p", { class: "small", id: "recent" });
  const waiting = empty("None since you came", "Once there are some, each reading adds its p50 and p99.");
  const element = part("latency", "Latency of recommendations while you look", waiting, canvas, words);
  let chart = null;
  const sizes = new ResizeObserver(() => canvas.clientWidth && chart?.setSize(size(canvas)));

  async function add({ now, recent }, before) {
    if (!before || !recent) return;
    for (const [place, value] of [now, recent.p50_ms, recent.p99_ms].entries()) readings[place].push(value);
    if (readings[0].length > KEPT) for (const column of readings) column.shift();
    fill(words, inWords(recent, now - before.now));
    if (!readings[1].some((value) => value !== null)) return;
    waiting.hidden = true;
    canvas.hidden = false;
    canvas.setAttribute("aria-label", `Line chart of ${many(readings[0].length, "reading")}. ${words.textContent}`);
    if (!chart) {
      const uPlot = await charts();
      chart ??= new uPlot(options(canvas), readings, canvas);
      sizes.observe(canvas);
    }
    chart.setData(readings);
  }

  function end() {
    sizes.disconnect();
    chart?.destroy();
  }

  return { element, add, end };
}

function inWords({ count: n, p50_ms, p99_ms }, seconds) {
  const span = `In the last ${seconds.toFixed(0)} seconds ${many(n, "recommendation")}`;
  return n ? `${span}: p50 ${ms(p50_ms)} (full line), p99 ${ms(p99_ms)} (dashed).` : `${span}.`;
}

const size = (canvas) => ({ width: canvas.clientWidth, height: HEIGHT });

/** Colours are asked for at each drawing, so that the chart follows the page into the night. */
function options(canvas) {
  const colour = (name) => () => getComputedStyle(canvas).getPropertyValue(name).trim();
  const points = { show: true, size: 6, fill: colour("--accent") };
  const line = (label, dash) => ({ label, stroke: colour("--accent"), width: 2, dash, points });
  const axis = (more) => ({ stroke: colour("--soft"), ticks: { show: false }, ...more });
  const written = (format) => (_, values) => values.map(format);
  return {
    ...size(canvas),
    cursor: { show: false },
    legend: { show: false },
    scales: {
      x: { range: (_, first, last) => [Math.min(first, last - SPAN), last] },
      y: { range: (_, __, most) => [0, (most || 1) * 1.1] },
    },
    axes: [
      axis({ grid: { show: false }, space: 90, values: written(clock) }),
      axis({ grid: { stroke: colour("--rule"), width: 1 }, size: 64, values: written(ms) }),
    ],
    series: [{}, line("p50"), line("p99", [6, 4])],
  };
}
