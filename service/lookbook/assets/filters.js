/** What may be recommended: strategy, category, colour, price, and whether what was bought may come again. */

import { choice, field, h, select } from "./dom.js";

/** Controls for a wish (parameters of a call for recommendations). `changed(wish)` hears of each sound change. */
export function filters(shop, changed) {
  const wish = { strategy: "blended", category: "", colour: "", price_min: "", price_max: "", exclude_purchased: true };
  const set = (part) => changed(Object.assign(wish, part));
  const chosen = (name) => (event) => set({ [name]: event.target.value });
  const strategies = [
    ["blended", "Blended"],
    ["style", "Style"],
    ["generated", "Generated", !shop.generating],
    ["trending", "Trending"],
  ];
  return h(
    "form",
    { class: "filters", "aria-label": "What may be recommended", onsubmit: (event) => event.preventDefault() },
    choice("Strategy", "strategy", strategies, wish.strategy, (strategy) => set({ strategy })),
    h(
      "div",
      { class: "row" },
      field("Category", select(shop.categories, "All", { id: "category", onchange: chosen("category") })),
      field("Colour", select(shop.colours, "All", { id: "colour", onchange: chosen("colour") })),
      prices(set),
      h(
        "label",
        { class: "tick" },
        h("input", {
          type: "checkbox",
          id: "exclude-purchased",
          checked: true,
          onchange: (event) => set({ exclude_purchased: event.target.checked }),
        }),
        "Leave out what was bought",
      ),
    ),
    shop.generating ? null : h("p", { class: "small" }, "“Generated” is off: the live bundle has no generating half."),
  );
}

/** Least and highest price; told only while the one is not above the other. */
function prices(set) {
  const problem = h("small", { id: "price-problem", class: "problem", role: "alert" });
  const input = (id) =>
    h("input", {
      type: "number",
      id,
      min: 0,
      step: "any",
      inputmode: "decimal",
      "aria-describedby": "price-problem",
      onchange: tell,
    });
  const [least, most] = [input("price-min"), input("price-max")];
  function tell() {
    const crossed = least.value && most.value && Number(least.value) > Number(most.value);
    const sound = least.validity.valid && most.validity.valid && !crossed;
    problem.textContent = sound ? "" : crossed ? "From must not be above to." : "Prices are numbers from 0.";
    if (sound) set({ price_min: least.value, price_max: most.value });
  }
  return h("div", { class: "prices" }, field("Price from", least), field("to", most), problem);
}
