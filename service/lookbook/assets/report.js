/** The evaluation report of the live bundle: in a sandboxed frame, or saved as a file where calls need a key. */

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { keysAreAsked } from "./keys.js";
import { empty, failed, part } from "./states.js";

/** The part of the page that shows it once asked for. `there`: whether the bundle holds one. */
export function reportPart(there) {
  return part(
    "report",
    "Evaluation report",
    there ? (keysAreAsked ? saving() : framing()) : empty("No report", "The live bundle was exported without one."),
  );
}

function framing() {
  const box = h("div");
  const button = h(
    "button",
    { type: "button", id: "show-report", "aria-expanded": "false", onclick: toggle },
    "Show the report",
  );
  function toggle() {
    const shown = box.firstChild !== null;
    fill(
      box,
      shown
        ? null
        : h("iframe", { src: "/lookbook/report", title: "Evaluation report of the live bundle", sandbox: true }),
    );
    button.textContent = shown ? "Show the report" : "Hide the report";
    button.setAttribute("aria-expanded", String(!shown));
  }
  return [button, box];
}

/** A frame's address cannot carry a key, and a key does not belong into an address. */
function saving() {
  const problem = h("div");
  async function save() {
    fill(problem);
    try {
      const url = URL.createObjectURL(await api.report());
      h("a", { href: url, download: "evaluation-report.html" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (failure) {
      fill(problem, failed(failure, save));
    }
  }
  return [
    h("p", { class: "small" }, "Calls need a key here, which a frame cannot send; so it is saved as a file to open."),
    h("button", { type: "button", id: "save-report", onclick: save }, "Save the report"),
    problem,
  ];
}
