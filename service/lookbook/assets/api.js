/** All calls that the page makes: one at a time per line here, timed, and told to whoever listens to `calls`. */

import { currentKey, forgetKey, keysAreAsked, obtainKey } from "./keys.js";

/** Hears a `call` event, with {method, path, status, ms} as its detail, for every call that ended. */
export const calls = new EventTarget();

/** Why a call brought nothing. `type` is the service's word, or `network`, or `rejected` for an entry that was not taken. */
export class Failure extends Error {
  constructor(status, type, message, field = null) {
    super(message);
    Object.assign(this, { status, type, field });
  }
}

const id = encodeURIComponent;

export const shop = () => get("/lookbook/shop");
export const customers = (q, n = 20) => get("/lookbook/customers", { q, n });
export const customer = (customerId) => get(`/lookbook/customers/${id(customerId)}`);
export const path = (customerId, at) => get(`/lookbook/customers/${id(customerId)}/path`, { at });
export const generation = (customerId, query) => get(`/lookbook/customers/${id(customerId)}/generation`, { query });
export const map = () => get("/lookbook/map");
export const operations = (since) => get("/lookbook/operations", { since });
export const cards = async (articleIds) =>
  articleIds.length ? get("/lookbook/articles", { id: articleIds }) : { articles: [] };
export const article = (articleId) => get(`/lookbook/articles/${id(articleId)}`);
export const similar = (articleId, n = 8) => get(`/v1/articles/${id(articleId)}/similar`, { n });
export const search = (q, wish) => get("/v1/search", { q, ...wish });
export const recommendations = (customerId, wish) => get(`/v1/customers/${id(customerId)}/recommendations`, wish);
export const tell = (event) => change("POST", "/v1/events", event);
export const putArticle = (entry) => change("PUT", "/v1/articles", [entry]);
export const setStock = (articleId, quantity) => change("PATCH", "/v1/stock", [{ article_id: articleId, quantity }]);

/** The address of an article's picture. */
export const pictureAddress = (articleId) => `/lookbook/articles/${id(articleId)}/picture`;

/** The evaluation report's HTML, as a Blob. */
export const report = async () => (await timed("GET", "/lookbook/report")).blob();

/** An article's picture, as a Blob: for pages that need a key for it. */
export const picture = async (articleId) => (await sent("GET", pictureAddress(articleId))).blob();

async function get(address, parameters = {}) {
  return (await timed("GET", address + query(parameters))).json();
}

/** Sends one entry. Throws a Failure, too, where the service did not take it. */
async function change(method, address, body) {
  const answer = await (await timed(method, address, JSON.stringify(body))).json();
  const [refusal] = answer.rejected;
  if (refusal) throw new Failure(200, "rejected", refusal.error.message, refusal.error.field);
  return answer;
}

function query(parameters) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") search.append(name, one);
  }
  const text = search.toString();
  return text && `?${text}`;
}

const timed = (method, address, body) =>
  sent(method, address, body, (call) => calls.dispatchEvent(new CustomEvent("call", { detail: call })));

/** The response to a call, made again with another key for as long as its key is refused. `told` hears of each try. */
async function sent(method, address, body, told = () => {}) {
  for (;;) {
    const key = keysAreAsked ? await keyOrFailure() : null;
    const response = await tried(method, address, body, key, told);
    if (response.ok) return response;
    const failure = await failureOf(response);
    if (!keysAreAsked || ![401, 403].includes(response.status)) throw failure;
    if (key === currentKey()) forgetKey(failure.message);
  }
}

async function keyOrFailure() {
  const key = await obtainKey();
  if (key === null) throw new Failure(401, "unauthorised", "No key was given.");
  return key;
}

async function tried(method, address, body, key, told) {
  const headers = { ...(key && { "X-API-Key": key }), ...(body && { "Content-Type": "application/json" }) };
  const call = { method, path: address, status: 0 };
  const start = performance.now();
  try {
    const response = await fetch(address, { method, headers, body });
    call.status = response.status;
    return response;
  } catch {
    throw new Failure(0, "network", "The service cannot be reached.");
  } finally {
    told({ ...call, ms: performance.now() - start });
  }
}

async function failureOf(response) {
  try {
    const { error } = await response.json();
    return new Failure(response.status, error.type, error.message, error.field);
  } catch {
    return new Failure(response.status, "unreadable", `The service answered ${response.status} without saying why.`);
  }
}
