// Drawing: heat maps on canvases, everything else as SVG in the pixels of its card.
import { attribute, box, clamp, elide, fill, html, label, middle, range, rgbOf, signed, small, soft, stroke, svg, total } from "./elements.js";

export const ORANGE = "#d55e00", CARD = "var(--ct-card, #fff)";
export const dotted = { stroke: ORANGE, "stroke-width": 1.5, "stroke-dasharray": "2 3" };

// ---- colours
export const SCALES = [ // amounts: cividis; changes: from blue (less) to red (more), RdBu of ColorBrewer
  "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 e1cc55 fee838", "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
].map(stops => stops.split(" ").map(rgbOf));
export const colorScale = stops => range(256).map(i => { // between evenly spaced stops [r, g, b]
  const at = i / 255 * (stops.length - 1), j = Math.min(Math.floor(at), stops.length - 2);
  return stops[j].map((v, c) => Math.round(v + (at - j) * (stops[j + 1][c] - v)));
});
export const luminance = rgb => // WCAG 2.1
  total(rgb.map((v, c) => [.2126, .7152, .0722][c] * (v <= 10 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4)));
export const textColor = rgb => luminance(rgb) > .179 ? "black" : "white";
export const mix = (rgb, other, part) => rgb.map((v, c) => Math.round(v + part * (other[c] - v)));
export const css = rgb => `rgb(${rgb.join()})`;
const stepOf = (v, low, high) => clamp(Math.trunc(255 * (v - low) / (high - low)), 0, 255);

// ---- lines and marks: series differ by more than colour
const MARKS = [ // paths around their middle
  "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "m-3.5-3.5h7v7h-7z", "m0-5l5 5l-5 5l-5-5z", "m0-5l5 8h-10z", "m0 5l5-8h-10z", "m-4-4l8 8v-8l-8 8z",
];
export const markOf = i => MARKS[i % MARKS.length];
const points = (xs, ys) => xs.map((x, i) => Number.isFinite(ys[i]) ? `${x.toFixed(2)} ${ys[i].toFixed(2)}` : null);
export const path = (xs, ys) => points(xs, ys).map((at, i, all) => at && (i && all[i - 1] ? "L" : "M") + at).join(""); // with gaps
export const line = (one, xs, ys, width = 2) =>
  stroke(path(xs, ys), { stroke: css(one.color), "stroke-width": width, "stroke-dasharray": one.dash });
export const dots = (one, xs, ys) => stroke(points(xs, ys).map(at => at && `M${at}${one.mark}`).join(""),
  one.hollow ? { fill: CARD, stroke: css(one.color), "stroke-width": 1.4 } : { fill: css(one.color), "stroke-width": .6 });

// ---- axes, legends
export const ticksBetween = (low, high, most) => { // round numbers
  const rough = (high - low) / Math.max(most, 1), base = 10 ** Math.floor(Math.log10(rough));
  const step = base * [1, 2, 5, 10].find(m => m * base >= rough), from = Math.ceil(low / step - 1e-9);
  return range(Math.floor(high / step + 1e-9) - from + 1).map(i => +((from + i) * step).toPrecision(9));
};
export const logTicks = (low, high, most) => { // 1, 2, 5 of each decade; decades alone where there are many
  const decades = range(Math.ceil(high) - Math.floor(low) + 1).map(i => Math.floor(low) + i), inside = v => v >= 10 ** low && v <= 10 ** high;
  const all = decades.flatMap(k => [1, 2, 5].map(m => m * 10 ** k)).filter(inside), whole = decades.map(k => 10 ** k).filter(inside);
  return all.length <= most || whole.length < 2 ? all : whole;
};
export function axes({ x, y, w, h }, across, up) { // each: ticks, at, text, title; `right` puts them on the other side
  const side = up.right ? x + w : x, out = up.right ? 1 : -1;
  return [
    across && across.ticks.map(v => [stroke(`M${across.at(v)} ${y + h}v4`, { opacity: .5 }),
      label(across.at(v), y + h + 17, across.text(v), { ...middle, ...small })]),
    across?.title && label(x + w / 2, y + h + 35, across.title, { ...middle, ...soft }),
    up.grid && stroke(up.ticks.map(v => `M${x} ${up.at(v)}h${w}`).join(""), { opacity: .1 }),
    up.ticks.map(v => [stroke(`M${side} ${up.at(v)}h${4 * out}`, { opacity: .5 }),
      label(side + 7 * out, up.at(v) + 4, up.text(v), { "text-anchor": up.right ? "start" : "end", ...small })]),
    up.title && label(0, 0, up.title, { ...middle, ...soft, transform: `translate(${side + up.far * out} ${y + h / 2}) rotate(-90)` }),
  ];
}
export function legend(rows, left, top, right) { // lines, marks and names, in as many rows as they need
  let x = left, y = top;
  const nodes = rows.map(one => {
    const name = elide(one.name, 36), wide = 38 + 6.6 * name.length;
    if (x > left && x + wide > right) { x = left; y += 19; }
    x += wide;
    const at = x - wide;
    return [line(one, [at, at + 22], [y - 4, y - 4], 1.5), dots(one, [at + 11], [y - 4]), label(at + 27, y, name)];
  });
  return { nodes, bottom: y };
}

// ---- heat maps
export function paint(canvas, columns, rows, color) { // color: number of a pixel -> [r, g, b], or null for an empty one
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows), out = image.data;
  for (let i = 0; i < columns * rows; i++) {
    const rgb = color(i);
    if (!rgb) continue;
    for (let c = 0; c < 3; c++) out[4 * i + c] = rgb[c];
    out[4 * i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}
export const shades = (values, scale, low, high) => // NaN stays empty
  i => values[i] === values[i] ? scale[stepOf(values[i], low, high)] : null;
export function heat(card, slot, { x, y, w, h }, values, columns, scale, low, high) {
  const canvas = card.canvases[slot] ||= card.body.insertBefore(html("canvas", { "aria-hidden": "true" }), card.svg);
  attribute(canvas, "style", `left:${x}px;top:${y}px;width:${w}px;height:${h}px`);
  paint(canvas, columns, values.length / columns, shades(values, scale, low, high));
}
function colorBar(card, slot, x, y, h, scale, low, high, unit) { // what the colours stand for
  heat(card, slot, { x, y, w: 11, h }, range(64).map(i => high - (high - low) * i / 63), 1, scale, low, high);
  const at = v => y + h * (high - v) / (high - low) + 4;
  return [label(x, y - 8, unit, { ...small, ...soft }), ticksBetween(low, high, 5).map(v => label(x + 16, at(v), +v.toPrecision(3), small))];
}
export function show(card, height, children, acts = {}) { // acts: tell(x, y) -> text, click(x, y), move(dx, dy)
  attribute(card.svg, "width", card.width);
  attribute(card.svg, "height", height);
  fill(card.svg, children);
  Object.assign(card, { tell: null, click: null, move: null }, acts);
}
// Planes of coloured cells in areas; tell(row, column, area) -> text, go(row, column), chosen() -> [row, column]
export function cells(card, areas, planes, columns, { scale, low, high, unit, ring = ORANGE, tell, go, chosen }) {
  const rows = planes[0].length / columns, first = areas[0], last = areas[areas.length - 1], at = chosen?.();
  areas.forEach((area, p) => heat(card, p, area, planes[p], columns, scale, low, high));
  const within = ({ x, y, w, h }) => // what is drawn in it counts in cells
    ({ transform: `translate(${x} ${y}) scale(${w / columns} ${h / rows})`, "vector-effect": "non-scaling-stroke" });
  const ringed = area => box(at[1], at[0], 1, 1, { ...within(area), fill: "none", stroke: ring, "stroke-width": 2.5 });
  const tall = Math.min(160, last.y + last.h - first.y - 20);
  const bar = colorBar(card, areas.length, last.x + last.w + 14, first.y + 14, tall, scale, low, high, unit);
  const find = (px, py) => areas.map(({ x, y, w, h }, p) => [(py - y) / h * rows, (px - x) / w * columns, p].map(Math.floor))
    .find(([i, j]) => i >= 0 && i < rows && j >= 0 && j < columns);
  return {
    within, nodes: [at && at[0] >= 0 && areas.map(ringed), bar],
    acts: {
      tell: (px, py) => { const hit = find(px, py); return hit && tell(...hit); },
      click: go && ((px, py) => { const hit = find(px, py); if (hit) go(...hit); }),
      move: go && ((dx, dy) => { const [i, j] = chosen(); go(clamp(Math.max(i, 0) + dy, 0, rows - 1), clamp(j + dx, 0, columns - 1)); }),
    },
  };
}
// Planes of coefficients side by side, or under each other where the card is narrow; `edges` is a path in cells over each of them.
export function coefficientPlanes(card, planes, height, [rows, columns], edges, options) {
  const n = planes.length, wide = n < 2 || card.width > 560, w = (card.width - 124 - (wide ? 30 * (n - 1) : 0)) / (wide ? n : 1);
  const areas = planes.map((_, i) => ({ x: 52 + (wide ? i * (w + 30) : 0), y: 12 + (wide ? 0 : i * (height + 52)), w, h: height }));
  const tell = (k, l, p) => `vertical ${k}, horizontal ${l}: ${planes[p][k * columns + l].toPrecision(3)} ${options.unit}`;
  const grid = cells(card, areas, planes, columns, { ...options, tell });
  const across = { ticks: ticksBetween(0, columns - 1, w / 60), text: String, title: "horizontal frequency (half-cycles)" };
  const up = { ticks: ticksBetween(0, rows - 1, 6), text: String, far: 36, title: "vertical" };
  show(card, areas[n - 1].y + height + 42, [
    areas.map((area, i) => [
      axes(area, { ...across, at: l => area.x + w * (l + .5) / columns },
        { ...up, at: k => area.y + height * (k + .5) / rows, ...wide && i && { title: null } }),
      stroke(edges, { ...grid.within(area), stroke: "white", "stroke-width": 3, opacity: .6 }),
      stroke(edges, { ...grid.within(area), stroke: "black", "stroke-width": 1.5, "stroke-dasharray": "6 4" })]),
    grid.nodes,
  ], grid.acts);
}
// Panels of numbers under each other, each number on its colour. mark, under: texts beside and below a number; more: what stands in the
// `room` pixels at the right, or in the `below` pixels at the bottom; scaled: the values that the colours are scaled to, by default all.
export function numberPanels(card, options) {
  const { heads, rows, columns, values, differs, scale, chosen, go, title, tilt, mark, under, more, room: kept = 0, top = 8, below = 0 } = options;
  const left = clamp(14 + 7 * Math.max(...rows.map(name => name.length)), 40, Math.min(150, Math.max(card.width * .3, 110)));
  const tall = clamp(Math.floor(436 / (heads.length * rows.length)), 17, 56), w = card.width - left - 62 - kept, cell = w / columns.length;
  const most = (options.scaled ?? values).flat(2).reduce((a, v) => v === v ? Math.max(a, Math.abs(v)) : a, differs ? .1 : 1);
  const high = differs ? most : 10 * Math.ceil(most / 10), low = differs ? -high : 0;
  const digits = high >= (differs ? 10 : 20) || cell < 32 ? 0 : 1, unit = differs ? "points" : "%";
  const written = (v, digits) => differs ? signed(v, digits) : v.toFixed(digits);
  const areas = heads.map((head, p) => ({ x: left, y: (head ? 24 : top) + p * (tall * rows.length + 26), w, h: tall * rows.length }));
  const bottom = areas[heads.length - 1].y + tall * rows.length, every = Math.max(Math.ceil(17 / cell), 1), at = chosen?.();
  const place = (j, p) => [`${title ? "block " : ""}${columns[j]}`, heads[p]].filter(Boolean).join(", ");
  const tell = options.tell ?? ((i, j, p) => values[p][i][j] === values[p][i][j] && `${rows[i]}, ${place(j, p)}: ${written(values[p][i][j], 2)} ${unit}`);
  const grid = cells(card, areas, values.map(lines => lines.flat()), columns.length, { scale, low, high, unit, chosen, go, tell });
  const upright = range(columns.length + 1).map(j => `M${j} 0v${rows.length}`).join("");
  const gaps = upright + range(rows.length + 1).map(i => `M0 ${i}h${columns.length}`).join("");
  const bold = yes => yes && { "font-weight": 700 }, half = i => (i + .5) * tall + 4, room = Math.max(Math.floor((left - 12) / 7), 4);
  const second = under && tall >= 28 && cell >= 58; // there is room for a second line
  const number = (v, i, j, p) => v === v && cell >= Math.max(17, 6.8 * written(v, digits).length) && [[written(v, digits), second ? -6 : 0, cell < 30 ? 10 : 11.5],
    second && [under(i, j, p), 6, 9.5], mark && [mark(i, j, p), 9 - tall / 2, 8, cell / 2 - 6]].filter(Boolean).map(([text, dy, size, dx = 0]) =>
    label(left + (j + .5) * cell + dx, areas[p].y + half(i) + dy, text, { ...middle, "font-size": size, fill: textColor(scale[stepOf(v, low, high)]) }));
  show(card, bottom + (tilt ? 110 : 46) + below, [
    areas.map((area, p) => [
      stroke(gaps, { ...grid.within(area), stroke: CARD }), label(left, area.y - 7, heads[p], bold(true)),
      rows.map((name, i) => svg("g", {}, svg("title", {}, name),
        label(left - 8, area.y + half(i), elide(name, room), { "text-anchor": "end", ...bold(i === at?.[0]) }))),
      values[p].map((line, i) => line.map((v, j) => number(v, i, j, p)))]),
    columns.map((name, j) => j % every ? null : label(0, 0, elide(String(name), 18), { "text-anchor": tilt ? "end" : "middle", ...small,
      ...bold(j === at?.[1]), transform: `translate(${left + (j + .5) * cell} ${bottom + 14}) rotate(${tilt ? -50 : 0})` })),
    title && label(left + w / 2, bottom + 36, title, { ...middle, ...soft }), grid.nodes, more?.(areas, tall, bottom),
  ], grid.acts);
}
