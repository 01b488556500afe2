/** What moved between two rankings of article ids. */

/**
 * @param {string[]} before @param {string[]} after
 * @returns {{by: Map<string, number|null>, fresh: string[], gone: string[], moved: number}} `by`: places that each of
 * `after` rose (above 0) or fell; null where it is new.
 */
export function moved(before, after) {
  const places = new Map(before.map((articleId, place) => [articleId, place]));
  const by = new Map(
    after.map((articleId, place) => [articleId, places.has(articleId) ? places.get(articleId) - place : null]),
  );
  const fresh = after.filter((articleId) => by.get(articleId) === null);
  const gone = before.filter((articleId) => !by.has(articleId));
  return { by, fresh, gone, moved: [...by.values()].filter(Boolean).length };
}

/** "4 new, 7 moved, 4 gone". */
export function summary({ fresh, gone, moved }) {
  if (!fresh.length && !gone.length && !moved) return "Nothing moved";
  return `${fresh.length} new, ${moved} moved, ${gone.length} gone`;
}

/** What a badge shows and what it is called: ["▲3", "up 3 places", "up"]; null where nothing moved. */
export function badge(by) {
  if (by === null) return ["new", "", "new"];
  if (!by) return null;
  const places = Math.abs(by) === 1 ? "1 place" : `${Math.abs(by)} places`;
  return by > 0 ? [`▲${by}`, `up ${places}`, "up"] : [`▼${-by}`, `down ${places}`, "down"];
}
