/** Pictures of articles: plain `<img>`s, or, where calls need a key, fetched with it once they come into view. */

import { picture as fetched, pictureAddress } from "./api.js";
import { h } from "./dom.js";
import { keysAreAsked } from "./keys.js";

const KEPT = 400;
const addresses = new Map(); // article id → promise of a blob: URL, least lately asked for first
const wanted = new WeakMap(); // <img> → article id
const seen = keysAreAsked ? new IntersectionObserver(reveal, { rootMargin: "200px" }) : null;

/** The picture of an article. `alt`: empty where its title stands beside it. */
export function picture(articleId, alt = "") {
  const img = h("img", { class: "picture", alt, width: 108, height: 156, loading: "lazy", decoding: "async" });
  img.addEventListener("error", () => img.classList.add("missing"));
  if (seen) {
    wanted.set(img, articleId);
    seen.observe(img);
  } else {
    img.src = pictureAddress(articleId);
  }
  return img;
}

/** Forgets an article's picture, after it was given another. */
export async function refresh(articleId) {
  addresses.delete(articleId);
  if (!keysAreAsked) await fetch(pictureAddress(articleId), { cache: "reload" }).catch(() => {});
}

function reveal(entries) {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    address(wanted.get(target)).then(
      (url) => (target.src = url),
      () => target.classList.add("missing"),
    );
  }
}

function address(articleId) {
  const known = addresses.get(articleId) ?? fetched(articleId).then((blob) => URL.createObjectURL(blob));
  addresses.delete(articleId);
  addresses.set(articleId, known);
  known.catch(() => addresses.delete(articleId));
  if (addresses.size > KEPT) drop(addresses.keys().next().value);
  return known;
}

function drop(articleId) {
  addresses.get(articleId).then(URL.revokeObjectURL, () => {});
  addresses.delete(articleId);
}
