/** What the shop has, and who is chosen: what all views share. */

import { shop as asked } from "./api.js";

let known = null;

/** What the shop has, asked for once; again after `forget`. */
export function shop() {
  known ??= asked().catch((failure) => {
    known = null;
    throw failure;
  });
  return known;
}

/** Articles changed, so that what the shop has may be another. */
export function forget() {
  known = null;
}

/** Who is chosen; stays so between views. */
export const chosen = { customer: null };
