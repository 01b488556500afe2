/** Elements without HTML strings: whatever comes from data becomes text or an attribute, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. `attributes`: false and null are left out, functions become listeners (`onclick`), `value` and the like properties. */
export function h(tag, attributes, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "open"]);

function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name) && name in element) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Puts `children` in the place of whatever `parent` holds. */
export function fill(parent, ...children) {
  parent.replaceChildren(...present(children));
  return parent;
}

/** Text for screen readers only. */
export function unseen(text) {
  return h("span", { class: "unseen" }, text);
}

let counted = 0;

/** An id for `for` and `aria-…` that nothing else on the page has. */
function freshId(prefix) {
  counted += 1;
  return `${prefix}-${counted}`;
}

/** A label above its control. */
export function field(text, control, hint) {
  control.id ||= freshId("field");
  const help = hint ? h("small", { id: `${control.id}-hint` }, hint) : null;
  if (help) control.setAttribute("aria-describedby", help.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, text), control, help);
}

/** A `<select>`; the first option, with an empty value, is called `any`. */
export function select(values, any, attributes) {
  const options = values.map((value) => h("option", { value }, value));
  return h("select", attributes, h("option", { value: "" }, any), options);
}

/** One choice of few, as radio buttons side by side. `options`: [value, text, disabled?] each. */
export function choice(legend, name, options, chosen, onchange) {
  const radio = ([value, text, disabled]) => {
    const input = h("input", {
      type: "radio",
      name,
      value,
      checked: value === chosen,
      disabled: Boolean(disabled),
      onchange: () => onchange(value),
    });
    return h("label", null, input, h("span", null, text));
  };
  return h("fieldset", { class: "choice" }, h("legend", null, legend), h("div", null, options.map(radio)));
}
