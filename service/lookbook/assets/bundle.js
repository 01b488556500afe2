/** What serves: the live bundle, its weights, and how it did when it was evaluated. */

import { h } from "./dom.js";
import { empty } from "./states.js";
import { table } from "./tables.js";
import { count, day, moment } from "./words.js";

/** Where the bundle comes from, and the weights of its blended ranking. */
export function bundle({ version, created, data_set, blend }) {
  const pairs = [
    ["Version", version],
    ["Created", Date.parse(created) ? moment(Date.parse(created) / 1000) : created],
    ["Data set", data_set?.name],
    ["Articles", data_set?.articles],
    ["Customers", data_set?.customers],
    ["Purchases", data_set?.purchases],
    ["Trained until", data_set?.cutoff && day(data_set.cutoff)],
  ];
  const told = ([name, value]) =>
    h("div", null, h("dt", null, name), h("dd", null, typeof value === "number" ? count(value) : value));
  const { cold_by_style: byStyle, ...numbers } = blend ?? {};
  const weights = Object.entries(numbers).map(([name, weight]) => [
    `Weight of ${name.replaceAll("_", " ")}`,
    weight.toFixed(3),
  ]);
  const cold = ["Without purchases", byStyle ? "ranked like all others" : "what trends comes first"];
  return h(
    "dl",
    { class: "pairs" },
    [...pairs, ...weights, cold].filter(([, value]) => value !== null && value !== undefined).map(told),
  );
}

const CHIEF = { auc: "AUC", recall_10: "Recall@10", ndcg_10: "NDCG@10", mrr: "MRR" };

/** The chief figures of the table that the evaluation put first. */
export function metrics(evaluation) {
  const headline = evaluation?.tables?.[evaluation.headline];
  if (!headline) return empty("Not evaluated", "The bundle holds no evaluation that fits it.");
  const percent = (figure) => (typeof figure?.value === "number" ? `${(100 * figure.value).toFixed(1)} %` : "–");
  const rows = Object.entries(headline.models).map(([model, figures]) => [
    model,
    ...Object.keys(CHIEF).map((name) => percent(figures[name])),
  ]);
  return [
    h("p", { class: "small" }, `${headline.title}.`),
    table("Chief figures by model", ["Model", ...Object.values(CHIEF)], rows),
  ];
}
