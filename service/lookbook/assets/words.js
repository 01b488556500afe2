/** How figures, times and the service's words read. */

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
const MONTH = new Intl.DateTimeFormat("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium", timeZone: "UTC" });
const COUNT = new Intl.NumberFormat("en-GB");

/** Unix seconds as a day, a moment, a month or the time of day, all in UTC. */
export const day = (seconds) => DAY.format(seconds * 1000);
export const moment = (seconds) => MOMENT.format(seconds * 1000);
export const clock = (seconds) => CLOCK.format(seconds * 1000);
export const month = (seconds) => MONTH.format(seconds * 1000);

export const count = (number) => COUNT.format(number);

/** "1 article", "2 articles". */
export const many = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;

/** Milliseconds to three figures at most. */
export function ms(value) {
  if (value === null || value === undefined) return "–";
  return `${value < 10 ? Number(value.toPrecision(2)) : count(Math.round(value))} ms`;
}

/** A price without a currency, which the service does not know either. */
export function price(value) {
  if (value === null || value === undefined) return "no price";
  return value >= 1 ? value.toFixed(2) : String(Number(value.toPrecision(2)));
}

export function stock({ quantity, in_stock }) {
  if (!in_stock) return "out of stock";
  return quantity === null ? "in stock" : `${count(quantity)} in stock`;
}

/** A source's name in the answers, and on the page. */
export const SOURCES = {
  style: "style",
  session: "clicks",
  trending: "trending",
  best_sellers: "best sellers",
  bought_before: "bought before",
  generated: "generated",
  catalogue: "catalogue",
};

const DEEDS = { purchase: "bought", click: "clicked", search: "searched for", return: "returned" };

/** What an event says that somebody did. */
export const deed = (type) => DEEDS[type] ?? type;

export const ordinal = (number) => {
  const ending = { one: "st", two: "nd", few: "rd", other: "th" };
  return `${count(number)}${ending[new Intl.PluralRules("en", { type: "ordinal" }).select(number)]}`;
};
