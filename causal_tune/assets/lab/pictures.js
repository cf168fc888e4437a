// Views of one image: its features in three directions, and what the model makes of it with and without the filter.
import { html, meanOf, stroke, svg, svgNode } from "./elements.js";
import { numberPanels, ORANGE, paint, shades, show } from "./drawing.js";
import { blockOf, series, seriesName, titled } from "./views.js";

export const figure = (head, ...nodes) => html("figure", {}, html("div", { class: "ct-picture" }, nodes), html("figcaption", {}, head));
export const picture = src => html("img", { src, alt: "" });
const rowsOf = (card, rows) => card.pictures.replaceChildren(...rows.map(row => html("div", { class: "ct-row" }, row)));
export function absent(card, title, why) {
  titled(card, title, why);
  card.pictures?.replaceChildren();
  card.answer = null;
  show(card, 0, []);
}
function projection({ height, width }, planes, limit) { // 0 is grey
  return paint(html("canvas"), width, height, i => planes.map(z => 255 * (.5 + z[i] / (2 * limit))));
}
function normMap({ numbers: { height, width }, scales }, { norms, span: [low, high], outliers: [xs, ys] }) {
  const cross = xs.map((x, i) => `M${x + .1} ${ys[i] + .1}l.8 .8m0-.8l-.8 .8`).join("");
  const drawn = [["white", .3], [ORANGE, .18]].map(([color, width]) => stroke(cross, { stroke: color, "stroke-width": width }));
  return [paint(html("canvas"), width, height, shades(norms, scales.amounts, low, high || 1)),
    svgNode(svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" }, drawn))];
}
function features(card, lab) {
  const { data, state, numbers } = lab, several = data.models.length > 1, images = data.images[state.domain];
  const title = `One image of ${state.domain}: features of block ${blockOf(lab)} in three principal directions`;
  if (!images?.length) return absent(card, title, "no example images of this domain fit into this page");
  const one = images[Math.min(state.image, images.length - 1)], limit = Math.max(data.limits[state.layer], 1e-12);
  const directions = data.shared ? "the same directions for all models" : "each model has directions of its own";
  titled(card, title, several ? directions : "");
  rowsOf(card, one.models.map((packed, m) => {
    const found = numbers.image(packed, state.layer), [low, high] = found.span.map(v => +v.toPrecision(3));
    const parts = numbers.parts(found.maps, lab.band).map((planes, i) => figure(["before", "kept", "removed"][i], projection(numbers, planes, limit)));
    const norms = figure(`token norm, ${low} to ${high} (×: outliers)`, normMap(lab, found));
    return [figure(several ? data.models[m] : "input", picture(one.input)), parts, norms];
  }));
}

// what Python is asked: the entries of the state that an answer depends on
export const question = state => JSON.stringify(["domain", "image", "domains", "filter", "cuts", "order", "keep_dc"].map(name => state[name]));
function segmentation(card, lab) {
  const answer = lab.answers.get(question(lab.state)), title = `One image of ${lab.state.domain}: segmentation`;
  const why = lab.link.live() ? "asking the model; a running kernel answers …" : "the model is not in this page: open the lab in Jupyter";
  if (!answer) return absent(card, title, why);
  titled(card, title, answer.rows[0].model ? "a row for each model" : "");
  const head = (row, i) => row.model && !i ? `${row.model}: ${row.heads[0]}` : row.heads[i];
  if (card.answer?.rows !== answer.rows) rowsOf(card, answer.rows.map(row => row.pictures.map((src, i) => figure(head(row, i), picture(src)))));
  card.answer = answer;
}
function iou(card, lab) {
  const answer = lab.answers.get(question(lab.state)), found = answer?.iou, title = "Change of IoU by the filter";
  card.node.hidden = !lab.visible("iou") || !lab.data.labelled;
  if (!found?.class.length) return absent(card, title, !answer && !lab.link.live() ? "this needs the model" : "counting …");
  titled(card, title, found.done < found.all ? `counting: ${found.done} of ${found.all} images` : "points, filtered minus unfiltered");
  const names = found.domain.map((domain, i) => seriesName(lab, domain, found.model?.[i])), rows = series(lab).map(one => one.name).filter(name => names.includes(name));
  const byCell = new Map(names.map((row, i) => [`${row}\n${found.class[i]}`, 100 * found.change[i]]));
  const columns = [...new Set(found.class)], of = (row, name) => byCell.get(`${row}\n${name}`) ?? NaN;
  const values = [rows.map(row => { const line = columns.map(name => of(row, name)); return [meanOf(line), ...line]; })];
  numberPanels(card, { heads: [""], rows, columns: ["mean of classes", ...columns], values, differs: true, tilt: true, scale: lab.scales.changes });
}
export const PICTURE_VIEWS = { features, segmentation, iou };
