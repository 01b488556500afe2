/** A new article with its picture: put into the catalogue, and shown where it is recommended at once. */

import * as api from "./api.js";
import { articleLink } from "./cards.js";
import { field, fill, h, select } from "./dom.js";
import { base64, downscaled } from "./photo.js";
import { refresh } from "./pictures.js";
import { chosen, forget } from "./shop.js";
import { similar, standing } from "./standing.js";
import { failed } from "./states.js";
import { ms } from "./words.js";

const OTHER = "\u0000other"; // a value that no text of the catalogue can be

/** The form that adds an article, and what came of it. `shop`: values to choose from. */
export function adding(shop) {
  const fields = {
    title: h("input", { type: "text", id: "new-title", required: true, maxlength: 200, autocomplete: "off" }),
    article_id: h("input", {
      type: "text",
      id: "new-id",
      required: true,
      maxlength: 128,
      autocomplete: "off",
      value: freeId(),
    }),
    price: h("input", { type: "number", id: "new-price", min: 0.01, step: "any", inputmode: "decimal" }),
    quantity: h("input", { type: "number", id: "new-quantity", min: 0, step: 1, inputmode: "numeric", value: 10 }),
    description: h("textarea", { id: "new-description", rows: 3, maxlength: 5_000 }),
  };
  const facets = {
    category: facet("Category", "new-category", shop.categories, true),
    colour: facet("Colour", "new-colour", shop.colours),
    brand: facet("Brand", "new-brand", shop.brands),
    gender: facet("Gender", "new-gender", shop.genders),
  };
  const photo = photoField();
  const problem = h("div");
  const result = h("div", { id: "added-box" });
  const button = h("button", { type: "submit", class: "primary" }, "Add article");

  /** Marks the control whose value the service refuses, and goes to it; marks none where `name` is of none. */
  function blame(name) {
    const controls = { ...fields, image: photo.control };
    for (const [facetName, { control }] of Object.entries(facets)) controls[facetName] = control();
    for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
    controls[name]?.setAttribute("aria-invalid", "true");
    controls[name]?.focus();
  }

  function entry() {
    const values = {
      article_id: fields.article_id.value.trim(),
      title: fields.title.value.trim(),
      description: fields.description.value.trim(),
      price: fields.price.value && Number(fields.price.value),
      image: photo.image(),
    };
    for (const [name, { value }] of Object.entries(facets)) values[name] = value();
    return Object.fromEntries(Object.entries(values).filter(([, value]) => value));
  }

  async function add(event) {
    event?.preventDefault();
    const article = entry();
    fill(problem);
    blame(null);
    button.disabled = true;
    try {
      const took = await put(article, fields.quantity.value);
      fill(result, added(article, took));
      result.querySelector("h2").focus();
      fields.article_id.value = freeId();
    } catch (failure) {
      fill(problem, failed(failure, add));
      blame(failure.field);
    } finally {
      button.disabled = false;
    }
  }

  const form = h(
    "form",
    { class: "adding", id: "add-form", onsubmit: add },
    h(
      "div",
      { class: "columns" },
      field("Title", fields.title),
      field("Article id", fields.article_id, "Any id that is free; an id in use changes that article."),
      facets.category.element,
      facets.colour.element,
      facets.brand.element,
      facets.gender.element,
      field("Price", fields.price),
      field("Stock", fields.quantity, "Empty: in stock, without a level."),
      field("Description", fields.description),
      photo.element,
    ),
    problem,
    button,
  );
  return [form, result];
}

/** Puts the article, and its stock where given. How long the article took, in ms. */
async function put(article, quantity) {
  const start = performance.now();
  await api.putArticle(article);
  const took = performance.now() - start;
  if (quantity !== "") await api.setStock(article.article_id, Number(quantity));
  await refresh(article.article_id);
  forget();
  return took;
}

function added(article, took) {
  const somebody = chosen.customer
    ? null
    : h("p", null, "Choose a customer above and open it, to see where it stands for them.");
  return h(
    "div",
    { class: "added", id: "added" },
    h("h2", { tabindex: -1 }, "Added"),
    h(
      "p",
      { role: "status" },
      h("a", { id: "added-link", href: articleLink(article.article_id) }, article.title),
      ` is in the catalogue after ${ms(took)}, and recommended from now on.`,
    ),
    somebody,
    standing(article).element,
    similar(article.article_id),
  );
}

const freeId = () => `lookbook-${Date.now().toString(36)}`;

/** One of the values in use, or another that is typed. */
function facet(name, id, values, required = false) {
  const typed = h("input", {
    type: "text",
    id: `${id}-other`,
    "aria-label": `Another ${name.toLowerCase()}`,
    hidden: true,
    maxlength: 200,
    autocomplete: "off",
  });
  const chosen = select(values, required ? "Choose …" : "Unknown", {
    id,
    required,
    onchange: () => other(chosen.value === OTHER),
  });
  const other = (wanted) => {
    typed.hidden = !wanted;
    typed.required = wanted;
    if (wanted) typed.focus();
  };
  chosen.append(h("option", { value: OTHER }, "Another …"));
  const element = field(name, chosen);
  element.append(typed);
  const control = () => (chosen.value === OTHER ? typed : chosen);
  return { element, control, value: () => (chosen.value === OTHER ? typed.value.trim() : chosen.value) };
}

/** A file input with a preview of what is sent. */
function photoField() {
  let url = "";
  const note = h("small", { id: "photo-note", role: "status" }, "Made small here: at most 256 pixels are sent.");
  const preview = h("img", {
    class: "picture",
    alt: "The picture that is sent",
    width: 108,
    height: 156,
    hidden: true,
  });
  const input = h("input", {
    type: "file",
    id: "new-picture",
    accept: "image/*",
    "aria-describedby": note.id,
    onchange: read,
  });
  async function read() {
    url = "";
    try {
      if (input.files[0]) url = await downscaled(input.files[0]);
      note.textContent = url ? `${Math.ceil(base64(url).length / 1024)} KB are sent.` : "No picture.";
    } catch {
      note.textContent = "This file is no picture that can be read here.";
    }
    preview.hidden = !url;
    if (url) preview.src = url;
  }
  const element = field("Picture", input);
  element.append(note, preview);
  return { element, control: input, image: () => url && base64(url) };
}
