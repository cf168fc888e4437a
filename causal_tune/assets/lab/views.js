// Views of spectra and filters. Each takes a card and the lab, and draws the lab's state into the card.
import { amount, attribute, html, label, middle, percent, range, small, stroke, superscript, total, twoDigits, write } from "./elements.js";
import {
  axes, coefficientPlanes, dots, dotted, heat, legend, line, logTicks, luminance, markOf, mix, numberPanels, ORANGE, path, show, ticksBetween,
} from "./drawing.js";

// ---- what is drawn of a state
export const blockOf = lab => lab.data.layers[lab.state.layer];
const severalModels = lab => lab.data.models.length > 1;
export const seriesName = (lab, domain, model) => severalModels(lab) ? `${model} · ${domain}` : domain;
const readable = (lab, rgb) => lab.dark && luminance(rgb) < .1 ? rgb.map(v => Math.round(v * .6 + 102)) : rgb; // on a dark card
const toned = (lab, rgb, m) => mix(rgb, lab.dark ? [255, 255, 255] : [0, 0, 0], Math.min(.5 * m, .75)); // a model's shade of a domain's colour
export const series = lab => lab.data.models.flatMap((model, m) => lab.state.domains.map(domain => ({
  model, domain, name: seriesName(lab, domain, model), row: lab.numbers.rowOf(domain, model),
  plane: lab.numbers.energyOf(domain, lab.state.layer, model), color: toned(lab, readable(lab, lab.data.colors[domain]), m),
  mark: markOf(lab.data.domains.indexOf(domain)), dash: m ? "6 5" : null, hollow: m > 0,
})));
export const energyShown = ({ state, numbers }) => numbers.energyOf(state.domain, state.layer, state.model);
export const energyOfReference = ({ state, numbers }) => numbers.energyOf(state.reference, state.layer, state.against);
export function titled(card, title, sub = "") {
  write(card.title, title);
  write(card.sub, sub);
  attribute(card.svg, "aria-label", `${title}. ${sub}`);
}
export function zoneNames(lab) {
  const [low, high] = lab.numbers.zoneEdges(lab.band).map(twoDigits);
  return ["everywhere", `below ${low}`, `from ${low} to ${high}`, `above ${high}`];
}

function curves(card, lab) {
  const { numbers, state, band } = lab, share = state.scale === "share", rows = series(lab);
  const area = { x: 56, y: 24, w: card.width - 110, h: 200 };
  const energies = rows.map(one => [share ? NaN : one.plane[0], ...numbers.profile(one.plane, share)]); // DC, then rings
  const seen = energies.flat().filter(e => e > 0), [least, most] = seen.length ? [Math.min(...seen), Math.max(...seen)] : [1, 10];
  const [low, high] = share ? [0, 1.05 * most] : [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most) + .01)];
  const x = r => area.x + area.w * (r + .03) / (Math.SQRT2 + .03), level = e => share ? e : Math.log10(e);
  const y = e => area.y + area.h * (high - level(e)) / (high - low), top = g => area.y + area.h * (1.02 - g) / 1.02;
  const gain = numbers.curve(band), gains = path(gain.x.map(x), gain.y.map(top)), right = x(gain.x[gain.x.length - 1]);
  const across = { ticks: ticksBetween(0, 1.4, card.width < 480 ? 4 : 7), at: x, text: String, title: "radial frequency (share of Nyquist)" };
  const up = share ? { ticks: ticksBetween(low, high, 5), at: y, text: String, title: "share of energy per ring (%)" }
    : { ticks: range(high - low + 1).map(i => low + i), at: v => y(10 ** v), text: superscript, title: "energy per coefficient" };
  const named = legend(rows, area.x, 286, card.width), xs = [0, ...numbers.radii].map(x);
  titled(card, `What the filter keeps: block ${blockOf(lab)}`, "energy (squared feature units) by radius; marks at 0 are DC");
  show(card, named.bottom + 10, [
    stroke(`${gains}L${right} ${area.y}L${x(0)} ${area.y}Z`, { fill: "currentColor", "fill-opacity": .1, stroke: "none" }),
    axes(area, across, { ...up, grid: true, far: 44 }),
    axes(area, null, { ticks: [0, .25, .5, .75, 1], at: top, text: v => v % 1 ? twoDigits(v) : v, right: true, far: 40, title: "gain" }),
    numbers.cutoffs(band).map(r => stroke(`M${x(r)} ${area.y}v${area.h}`, dotted)),
    numbers.cutoffs(band).map(r => label(x(r), area.y - 6, twoDigits(r), { ...middle, ...small, fill: ORANGE })),
    stroke(gains, { "stroke-width": 2, "stroke-dasharray": "7 4" }),
    rows.map((one, i) => [line(one, xs.slice(1), energies[i].slice(1).map(y)), dots(one, xs, energies[i].map(y))]),
    named.nodes,
  ], { tell: px => {
    if (px < area.x || px > area.x + area.w) return null;
    const far = numbers.radii.map(r => Math.abs(x(r) - px)), i = far.indexOf(Math.min(...far));
    return [`radius ${twoDigits(numbers.radii[i])}`, ...rows.map((one, j) => `${one.name}: ${amount(energies[j][i + 1])}${share ? "%" : ""}`)].join("\n");
  } });
}

function plane(card, lab) {
  const { height, width } = lab.numbers;
  titled(card, `The same on the plane of ${height} × ${width} coefficients`, "gain; DC at the top left");
  coefficientPlanes(card, [lab.numbers.gain(lab.band)], 184, [height, width], "", { scale: lab.scales.amounts, low: 0, high: 1, unit: "gain" });
}

function zones(card, lab) {
  const { data, state, numbers } = lab, rows = series(lab), byModel = state.cells === "change by model", differs = state.cells !== "share removed";
  const base = one => byModel ? numbers.rowOf(one.domain) : numbers.rowOf(state.reference, state.against);
  const values = numbers.shares(lab.band).map(zone => rows.map(one =>
    zone[one.row].map((v, block) => 100 * (differs ? v - zone[base(one)][block] : v))));
  const than = byModel ? `by ${data.models[0]}` : `in ${seriesName(lab, state.reference, state.against)}`;
  titled(card, "Energy removed, by block and domain", differs ? `points more than ${than}` : "percent of the energy without DC");
  numberPanels(card, { heads: zoneNames(lab), rows: rows.map(one => one.name), columns: data.layers, values, differs, title: "block (from 0)",
    scale: differs ? lab.scales.changes : lab.scales.amounts,
    chosen: () => [rows.findIndex(one => one.domain === state.domain && one.model === (state.model ?? data.models[0])), state.layer],
    go: (i, layer) => lab.set({ domain: rows[i].domain, layer, ...severalModels(lab) && { model: rows[i].model } }) });
}

function cutoffLine({ band, data, numbers: { height, width } }, edge) {
  // columns, rows of an ellipse, or of a square where the filter's distance is max(k, l); cut where the plane ends
  const side = Math.trunc(edge * Math.min(height, width)), turn = range(91).map(i => i * Math.PI / 180);
  const round = turn.map(a => [width * edge * Math.cos(a), height * edge * Math.sin(a)]);
  const at = data.filters[band.filter].distance_gain ? [[0, side], [side, side], [side, 0]] : round;
  const kept = at.map(([l, k]) => l > width - .5 || k > height - .5 ? [NaN, NaN] : [l + .5, k + .5]);
  return path(kept.map(([l]) => l), kept.map(([, k]) => k));
}
function difference(card, lab) {
  const { numbers, state, band } = lab, share = state.scale === "share", unit = share ? "points" : "dB";
  const z = numbers.change(energyShown(lab), energyOfReference(lab), share), part = numbers.removed(band);
  const most = z.reduce((a, v) => Number.isFinite(v) ? Math.max(a, Math.abs(v)) : a, 1e-9);
  const [one, other] = card.width > 560 ? ["left", "right"] : ["above", "below"];
  const compared = `${seriesName(lab, state.domain, state.model)} against ${seriesName(lab, state.reference, state.against)}`;
  titled(card, `${compared}: block ${blockOf(lab)}`, `${unit}; ${one} the change, ${other} what of it the filter removes`);
  const edges = numbers.cutoffs(band).map(edge => cutoffLine(lab, edge)).join("");
  coefficientPlanes(card, [z, z.map((v, i) => v * part[i])], 250, [numbers.height, numbers.width], edges, {
    scale: lab.scales.changes, low: -most, high: most, unit, ring: "black",
    chosen: () => state.coefficient, go: (k, l) => lab.set({ coefficient: [k, l] }) });
}

function coefficient(card, lab) { // its pattern, and its energy over the blocks, domain by domain
  const { numbers, state, data } = lab, { height, width } = numbers, [k, l] = state.coefficient, rows = series(lab), at = k * width + l;
  const pattern = numbers.pattern(k, l), most = Math.max(...pattern.map(Math.abs)), wide = card.width > 420;
  const side = wide ? Math.min(card.width * .36, 250) : Math.min(card.width - 16, 250), image = { x: 8, y: 12, w: side, h: side * Math.min(height / width, 1.1) };
  const found = rows.map(one => data.layers.map((_, block) => numbers.energyOf(one.domain, block, one.model)[at]));
  const positive = found.flat().filter(e => e > 0), [least, top] = positive.length ? [Math.min(...positive), Math.max(...positive)] : [1, 10];
  const low = Math.log10(least) - .05, high = Math.max(Math.log10(top) + .05, low + .2);
  const area = wide ? { x: side + 70, y: 12, w: card.width - side - 84, h: 228 } : { x: 62, y: image.h + 34, w: card.width - 72, h: 190 };
  const x = block => area.x + area.w * (block + .5) / data.layers.length, y = e => area.y + area.h * (high - Math.log10(e)) / (high - low);
  const every = Math.max(Math.ceil(data.layers.length / Math.max(area.w / 26, 1)), 1);
  const across = { ticks: range(data.layers.length).filter(i => i % every === 0), at: x, text: i => data.layers[i], title: "block (from 0)" };
  const named = legend(rows, wide ? area.x : 8, area.y + area.h + 62, card.width);
  titled(card, `Coefficient: vertical ${k}, horizontal ${l}`, "its pattern, and its energy in each block");
  heat(card, 0, image, pattern, width, lab.scales.greys, -most, most);
  show(card, Math.max(image.y + image.h, named.bottom) + 10, [
    axes(area, across, { ticks: logTicks(low, high, 7), at: y, text: amount, grid: true, far: 48, title: "energy" }),
    stroke(`M${x(state.layer)} ${area.y}v${area.h}`, dotted),
    rows.map((one, i) => {
      const xs = data.layers.map((_, block) => x(block)), ys = found[i].map(y);
      return [line(one, xs, ys), dots(one, xs, ys)];
    }),
    named.nodes,
  ], { tell: px => {
    if (px < area.x || px > area.x + area.w) return null;
    const block = Math.min(Math.floor((px - area.x) / area.w * data.layers.length), data.layers.length - 1);
    return [`block ${data.layers[block]}`, ...rows.map((one, i) => `${one.name}: ${amount(found[i][block])}`)].join("\n");
  } });
}

export function sentences(lab) { // the first screen in words
  const { numbers, state, data } = lab, shares = numbers.shares(lab.band), on = state.filter !== "none", zones = zoneNames(lab);
  const rows = series(lab).map(one => ({ ...one, removed: shares.map(zone => zone[one.row][state.layer]) }));
  const order = state.filter === "butterworth" && `order ${state.order}`;
  const filter = [data.filters[state.filter].title, on && state.cuts.map(twoDigits).join(" to "), order, state.keep_dc && "DC passes"].filter(Boolean);
  const lines = rows.map(one => {
    const radius = numbers.radiusBelow(one.plane, lab.band), all = one.removed[0];
    const tenths = all > 1e-6 && radius ? `; nine tenths of that lie below ${twoDigits(radius)}` : "";
    const parts = [1, 2, 3].map(zone => `${percent(one.removed[zone])} ${zones[zone]}`).join(", ");
    const dc = `DC holds ${percent(one.plane[0] / total(one.plane))} of all energy and is left out.`;
    return `${one.name}: ${percent(all)} of the energy is removed (${parts})${tenths}. ${dc}`;
  });
  const sorted = rows.sort((a, b) => b.removed[0] - a.removed[0]).map(one => `${percent(one.removed[0])} of ${one.name}`);
  const ends = [...new Set([sorted[0], sorted[sorted.length - 1]])].join(" and ");
  return [`At block ${blockOf(lab)} the filter removes ${ends}. (Filter: ${filter.join(", ")}.)`, ...lines];
}
function words(card, lab) {
  titled(card, "In words", "for a caption");
  card.words.replaceChildren(...sentences(lab).map(line => html("p", {}, line)));
}

export const SPECTRAL_VIEWS = { curves, plane, zones, difference, coefficient, words };
