/** The customer of the page: a combobox that searches by id (ARIA 1.2, list autocomplete), and somebody new. */

import { customers } from "./api.js";
import { fill, h } from "./dom.js";

const PAUSE = 180; // ms without a keystroke before a search

/** An id that nothing is stored about. */
export function newcomer() {
  return `new-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
}

/** Builds the picker into `box`. `choose(id)`: somebody was chosen. Returns `show(id)`, which writes who is chosen. */
export function picker(box, choose) {
  const input = h("input", {
    id: "customer",
    type: "text",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "Search by id",
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": "customer-list",
  });
  const list = h("ul", { id: "customer-list", role: "listbox", "aria-label": "Customers", hidden: true });
  const note = h("p", { class: "unseen", role: "status" });
  const state = { options: [], active: -1, chosen: "", turn: 0, timer: 0 };

  function close() {
    clearTimeout(state.timer);
    state.turn += 1;
    list.hidden = true;
    activate(-1);
    input.setAttribute("aria-expanded", "false");
  }

  function activate(place) {
    state.options[state.active]?.element.setAttribute("aria-selected", "false");
    state.active = place;
    const option = state.options[place];
    if (!option) return input.removeAttribute("aria-activedescendant");
    option.element.setAttribute("aria-selected", "true");
    option.element.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", option.element.id);
  }

  function take(customerId) {
    close();
    show(customerId);
    choose(customerId);
  }

  function offer(ids, typed, complete) {
    const known = ids.map((customerId) => ({ customerId, text: customerId }));
    const stranger = typed && !ids.includes(typed) ? [{ customerId: typed, text: `“${typed}”, as somebody new` }] : [];
    state.options = [...known, ...stranger].map((option, place) => ({ ...option, element: row(option, place) }));
    state.active = -1;
    fill(
      list,
      state.options.map(({ element }) => element),
    );
    list.hidden = state.options.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    note.textContent = `${ids.length} customers found${complete ? "" : "; not all were looked at, type more"}`;
  }

  function row({ customerId, text }, place) {
    const pressed = (event) => (event.preventDefault(), take(customerId));
    return h(
      "li",
      {
        id: `customer-option-${place}`,
        role: "option",
        "aria-selected": "false",
        "data-customer": customerId,
        onmousedown: pressed,
      },
      text,
    );
  }

  async function search() {
    const turn = ++state.turn;
    const typed = input.value.trim() === state.chosen ? "" : input.value.trim();
    try {
      const answer = await customers(typed);
      if (turn === state.turn && document.activeElement === input) offer(answer.customers, typed, answer.complete);
    } catch (failure) {
      if (turn === state.turn) offer([], typed, true);
      note.textContent = failure.message;
    }
  }

  const keys = {
    ArrowDown: () => (list.hidden ? search() : activate(Math.min(state.active + 1, state.options.length - 1))),
    ArrowUp: () => activate(Math.max(state.active - 1, -1)),
    Escape: () => (list.hidden ? show(state.chosen) : close()),
    Enter: () => {
      const typed = input.value.trim();
      const chosen = state.options[state.active]?.customerId ?? typed;
      if (chosen) take(chosen);
    },
  };

  input.addEventListener("input", () => {
    clearTimeout(state.timer);
    state.timer = setTimeout(search, PAUSE);
  });
  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", () => list.hidden && search());
  input.addEventListener("blur", () => (close(), show(state.chosen)));
  input.addEventListener("keydown", (event) => {
    const pressed = keys[event.key];
    if (!pressed) return;
    event.preventDefault();
    pressed();
  });

  function show(customerId) {
    state.chosen = customerId ?? "";
    input.value = state.chosen;
  }

  fill(
    box,
    h("label", { for: "customer" }, "Customer"),
    h("div", { class: "combo" }, input, list),
    h("button", { type: "button", id: "someone-new", onclick: () => take(newcomer()) }, "Someone new"),
    note,
  );
  return show;
}
