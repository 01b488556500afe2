/** What is shown while nothing is there yet, when something went wrong, or where there is nothing to show. */

import { Failure } from "./api.js";
import { fill, h } from "./dom.js";

const WHAT = {
  network: [
    "The service cannot be reached",
    "It may be starting again, or the network is gone. Nothing was lost; try again in a moment.",
  ],
  store_unavailable: [
    "Redis does not answer",
    "What is known about customers and stock lives there. Nothing was lost; try again in a moment.",
  ],
  not_ready: [
    "The service is getting ready",
    "It is loading its bundle and the catalogue, which takes seconds. Try again in a moment.",
  ],
  unauthorised: [
    "An API key is needed",
    "This page shows what is stored about customers. Try again to give a key that is good for admin.",
  ],
  unknown_article: ["There is no such article", "The catalogue has never held an article of this id."],
  too_many_requests: [
    "Too many calls",
    "This API key makes more calls a second than are allowed. Try again in a moment.",
  ],
};

const turns = new WeakMap(); // box → how often something was asked for it

/** Something is asked for `box`. Returns what tells whether the answer is still wanted: on the page, and nothing newer. */
export function asking(box) {
  const turn = (turns.get(box) ?? 0) + 1;
  turns.set(box, turn);
  return () => box.isConnected && turns.get(box) === turn;
}

/**
 * Shows in `box` what `ask` brings: a skeleton, then what `show` makes of the answer, or what went wrong and a way to
 * try again. Answers are dropped that come after the box has left the page, or after something newer was asked for it.
 */
export async function load(box, ask, show, waiting = lines) {
  const held = box.contains(document.activeElement);
  const wanted = asking(box);
  box.setAttribute("aria-busy", "true");
  fill(box, waiting());
  try {
    const answer = await ask();
    if (wanted()) fill(box, show(answer));
  } catch (failure) {
    const notice = failed(failure, () => load(box, ask, show, waiting));
    if (wanted()) fill(box, notice);
  } finally {
    if (wanted()) box.removeAttribute("aria-busy");
    if (held) keepFocus(box);
  }
}

/** Focuses `box` where what was focused in it is gone, so that the keyboard goes on from there. */
export function keepFocus(box) {
  if (document.activeElement !== document.body) return;
  box.tabIndex = -1;
  box.focus({ preventScroll: true });
}

/** What went wrong, with a button that tries again where `again` is given. Anything but a Failure is a bug and thrown on. */
export function failed(failure, again) {
  if (!(failure instanceof Failure)) throw failure;
  const [title, text] = WHAT[failure.type] ?? ["That did not work", told(failure)];
  const button = again && h("button", { type: "button", class: "retry", onclick: again }, "Try again");
  const detail =
    WHAT[failure.type] && failure.status
      ? h("p", { class: "small" }, `${failure.status} ${failure.type}: ${failure.message}`)
      : null;
  return h(
    "div",
    { class: "failure", role: "alert", "data-failure": failure.type },
    h("p", { class: "notice-title" }, title),
    h("p", null, text),
    detail,
    button,
  );
}

const told = ({ field, message }) => (field ? `${field}: ${message}` : message);

/** Nothing to show, and what to do about it. */
export function empty(title, ...what) {
  return h("div", { class: "empty" }, h("p", { class: "notice-title" }, title), h("p", null, what));
}

/** The banner over an answer that Redis took no part in. */
export function degraded() {
  return h(
    "p",
    { class: "banner", id: "degraded" },
    h("strong", null, "Degraded answer. "),
    "Redis could not be asked, so this comes from memory and may be out of date. It mends itself as soon as Redis answers.",
  );
}

export const skeletonCards = (n = 12) => skeleton("cards", n);
export const strip = () => skeleton("strip", 8);
export const lines = () => skeleton("lines", 5);
export const block = () => skeleton("block", 1);

function skeleton(kind, n) {
  const shapes = Array.from({ length: n }, () => h("div"));
  return [
    h("p", { class: "unseen", role: "status" }, "Loading …"),
    h("div", { class: `skeleton ${kind}`, "aria-hidden": "true" }, shapes),
  ];
}

/** A titled part of a view. */
export function part(id, title, ...children) {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), children);
}
