"use strict";
/* The frequency lab without a kernel. Python has drawn every view once and left the numbers out (causal_tune.offline);
   here they are computed from the energies in the page, with the same formulas, and Plotly draws the same traces again.
   h, w: grid; k, l: row and column of a coefficient; planes are flat arrays, row by row, DC first. */
const by = id => document.getElementById(id);
const D = JSON.parse(by("data").textContent), S = D.state, [H, W] = D.grid, N = H * W, NAMES = D.domains;

// ---- what was packed in Python
function bytes(base64) {
  const text = atob(base64), out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out;
}
const ENERGY = (() => { // (domains, blocks, h, w); code 0: NaN, 1: none, others: equal steps of the logarithm
  const { bits, low, step, codes } = D.energy, raw = bytes(codes), view = new DataView(raw.buffer);
  const value = Float64Array.from({ length: 2 ** bits }, (_, i) => i > 1 ? Math.exp(low + step * (i - 2)) : i ? 0 : NaN);
  return Float64Array.from({ length: raw.length * 8 / bits },
    (_, i) => value[bits === 16 ? view.getUint16(2 * i, true) : raw[i]]);
})();
const energyOf = (name, layer) => {
  const at = (NAMES.indexOf(name) * D.layers.length + layer) * N;
  return ENERGY.subarray(at, at + N);
};

// ---- filters: gain of every coefficient, and over the radius; radii in single precision, as Python compares them
const f32 = Math.fround, range = n => Array.from({ length: n }, (_, i) => i), sigmoid = x => 1 / (1 + Math.exp(-x));
const R = Float64Array.from({ length: N }, (_, i) => f32(Math.hypot(f32(Math.floor(i / W) / H), f32(i % W / W))));
const OF_RADIUS = {
  none: () => () => 1,
  dog: (low, high) => r => Math.exp(-r * r / (2 * high * high)) - Math.exp(-r * r / (2 * low * low)),
  gaussian: (low, high) => r => Math.exp(-((r - (low + high) / 2) ** 2) / (2 * ((high - low) / 2) ** 2)),
  ideal: (low, high) => r => +(f32(r) >= f32(low) && f32(r) <= f32(high)),
  butterworth: (low, high, n) => r =>
    r ** n / Math.sqrt(r ** (2 * n) + low ** (2 * n)) / Math.sqrt(1 + (r / high) ** (2 * n)),
  learnable: (low, high) => r => sigmoid((r - low) / D.slope) * sigmoid((high - r) / D.slope),
};
function piecewise(d, side, low, high) { // d = max(k, l)
  const v1 = Math.trunc(low * side), v2 = Math.trunc(high * side);
  if (d > side) return .5;
  if (d > v2) return 1 - .3 * (d - v2) / Math.max(side - v2, 1);
  return d <= v1 ? .95 * d / (v1 + 1e-10) : .99;
}
let band = { filter: "dog", low: .2, high: .7 }; // the last filter that its family allows
const shape = b => OF_RADIUS[b.filter](b.low, b.high, b.order);
function gain(b) {
  const distance = i => Math.max(Math.floor(i / W), i % W), side = Math.min(H, W);
  const g = R.map(b.filter === "piecewise" ? (_, i) => piecewise(distance(i), side, b.low, b.high) : shape(b));
  if (b.dc) g[0] = 1;
  return g;
}
function curve(b, n = 128) { // along an axis where the gain does not depend on the radius alone
  if (b.filter !== "piecewise") { const x = range(n).map(i => i * Math.SQRT2 / (n - 1)); return { x, y: x.map(shape(b)) }; }
  return { x: range(n).map(i => i / n), y: range(n).map(i => b.dc && !i ? 1 : piecewise(i, n, b.low, b.high)) };
}
function cutoffs(b) { // a bell has none of its own: its radii of half the peak
  if (b.filter === "none") return [];
  if (b.filter !== "gaussian") return [b.low, b.high];
  const half = Math.sqrt(2 * Math.LN2) * (b.high - b.low) / 2, center = (b.low + b.high) / 2;
  return [center - half, center + half].filter(r => r > 0 && r < Math.SQRT2);
}
function wrong() { // the sentence that Python would say of these cut-offs
  const [low, high] = S.cuts, why = D.wrong[S.filter] || {};
  const text = low >= high ? why.equal : low >= why.top ? why.above : null;
  return text && fill(text, { low, high, width: 0 });
}

// ---- what a filter removes
const taken = b => gain(b).map(g => (1 - g) ** 2);
const ZONE = R.map(r => D.zones.filter(cut => r >= cut).length); // 0 low, 1 mid, 2 high
const sum = (values, from = 0) => values.subarray(from).reduce((a, e) => a + e, 0);
const TOTAL = range(NAMES.length * D.layers.length).map(i => sum(ENERGY.subarray(i * N, i * N + N), 1));
function shares(b) { // [all, low, mid, high][domain][block], without DC
  const t = taken(b), out = range(4).map(() => NAMES.map(() => []));
  TOTAL.forEach((total, at) => {
    const sums = [0, 0, 0, 0];
    for (let i = 1; i < N; i++) { const e = ENERGY[at * N + i] * t[i]; sums[0] += e; sums[1 + ZONE[i]] += e; }
    sums.forEach((s, p) => out[p][Math.floor(at / D.layers.length)].push(s / total)); // 0 / 0 is NaN: no energy
  });
  return out;
}
const RING = R.map(r => Math.min(Math.floor(r / Math.SQRT2 * D.rings), D.rings - 1));
function sumRings(plane) {
  const out = Array(D.rings).fill(0);
  for (let i = 1; i < N; i++) out[RING[i]] += plane[i];
  return out;
}
const COUNT = sumRings(R.map(() => 1)), THERE = range(D.rings).filter(i => COUNT[i]);
const RADII = (s => THERE.map(i => s[i] / COUNT[i]))(sumRings(R));
function profile(plane, share) { // mean energy in each ring, or the ring's share in percent
  const sums = sumRings(plane), all = sums.reduce((a, b) => a + b);
  return THERE.map(i => share ? 100 * sums[i] / all : sums[i] / COUNT[i]);
}
function change(share) { // per coefficient: dB, or points of the energy without DC
  const [a, b] = [S.domain, S.reference].map(name => energyOf(name, S.layer)), whole = e => Math.max(sum(e, 1), 1e-30);
  if (!share) return a.map((e, i) => e > 0 && b[i] > 0 ? 10 * Math.log10(e / b[i]) : NaN);
  const x = whole(a), y = whole(b);
  return a.map((e, i) => i ? 100 * (e / x - b[i] / y) : 0);
}

// ---- pictures: DCT with two matrices, three directions as red, green and blue
const cosines = n => range(n).map(k => Float64Array.from({ length: n },
  (_, j) => Math.cos(Math.PI * k * (2 * j + 1) / (2 * n)) * Math.sqrt((k ? 2 : 1) / n)));
const ROWS = cosines(H), COLS = cosines(W);
function transform(x, back) { // rows, then columns
  const y = new Float64Array(N), out = new Float64Array(N);
  for (let k = 0; k < H; k++) for (let i = 0; i < H; i++) {
    const c = back ? ROWS[i][k] : ROWS[k][i];
    for (let j = 0; j < W; j++) y[k * W + j] += c * x[i * W + j];
  }
  for (let l = 0; l < W; l++) for (let j = 0; j < W; j++) {
    const c = back ? COLS[j][l] : COLS[l][j];
    for (let k = 0; k < H; k++) out[k * W + l] += c * y[k * W + j];
  }
  return out;
}
function paint(maps, limit) { // the picture as a data URI
  const canvas = Object.assign(document.createElement("canvas"), { width: W, height: H }), pen = canvas.getContext("2d");
  const image = pen.createImageData(W, H);
  for (let i = 0; i < N; i++) {
    maps.forEach((z, c) => { image.data[4 * i + c] = Math.round(255 * (.5 + z[i] / (2 * limit))); });
    image.data[4 * i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return canvas.toDataURL();
}
function example() { // one image's projections (3 planes), norms and outliers at the block
  const all = D.images[S.domain], one = all[Math.min(S.image, all.length - 1)], at = S.layer;
  const codes = new Int8Array(bytes(one.maps).buffer, 3 * N * at, 3 * N), peak = one.peaks[at];
  const z = Float64Array.from(codes, q => q === -128 ? NaN : peak * Math.sign(q) * (q / 127) ** 2);
  const [low, high] = one.spans[at], norms = bytes(one.norms).subarray(N * at, N * at + N);
  return { input: one.input, maps: range(3).map(c => z.subarray(c * N, c * N + N)), outliers: one.outliers[at],
           norms: Array.from(norms, q => q === 255 ? null : low + (high - low) * q / 254) };
}

// ---- views: each fills the numbers into the figure that Python has drawn
const rows = (flat, w = W) => // NaN cells stay empty
  range(flat.length / w).map(i => Array.from(flat.slice(i * w, i * w + w), v => v === v ? v : null));
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (all, name) => name in values ? values[name] : all);
const VIEWS = {
  curves({ data: [ceiling, line, marks, ...lines] }) {
    const { x, y } = curve(band), cuts = cutoffs(band), share = S.scale === "share";
    Object.assign(ceiling, { x, y: x.map(() => 1) });
    Object.assign(line, { x, y });
    Object.assign(marks, { x: cuts.flatMap(c => [c, c, null]), y: cuts.flatMap(() => [0, 1.02, null]) });
    NAMES.forEach((name, i) => Object.assign(lines[i], { x: RADII, visible: S.domains.includes(name),
      y: S.domains.includes(name) ? profile(energyOf(name, S.layer), share) : [] }));
    const dc = lines[NAMES.length], on = lines.slice(0, NAMES.length).filter(t => t.visible);
    if (dc) Object.assign(dc, { x: on.map(() => 0), y: S.domains.map(name => energyOf(name, S.layer)[0]), text: S.domains,
      marker: { ...dc.marker, color: on.map(t => t.marker.color), symbol: on.map(t => t.marker.symbol) } });
  },
  plane({ data: [heat] }) { heat.z = rows(gain(band)); },
  zones({ data: [heat, numbers], layout }) {
    const differs = S.cells !== "share removed", reference = NAMES.indexOf(S.reference);
    const step = S.domains.length + 1, wide = D.layers.length; // panels stand under each other, an empty row between them
    const z = shares(band).flatMap(p => [...S.domains.map(name => p[NAMES.indexOf(name)].map(
      (v, l) => 100 * (differs ? v - p[reference][l] : v))), Array(wide).fill(NaN)]).slice(0, -1);
    const there = z.flatMap((row, y) => row.map((v, x) => ({ v, x, y }))).filter(c => c.v === c.v);
    const most = Math.max(.1, ...there.map(c => Math.abs(c.v)));
    const top = differs ? most : 10 * Math.ceil(Math.max(1, most) / 10), low = differs ? -top : 0;
    const digits = top >= (differs ? 10 : 20) ? 0 : 1, bright = D.bright[differs ? 1 : 0];
    const label = v => (t => /^[+-]0(\.0)?$/.test(t) ? t.slice(1) : t)((differs && v > 0 ? "+" : "") + v.toFixed(digits));
    Object.assign(heat, { z: rows(z.flat(), wide), zmin: low, zmax: top,
      customdata: z.map((_, y) => Array(wide).fill(S.domains[y % step] || "")) });
    const ink = v => bright[Math.trunc(255 * (v - low) / (top - low))] === "1" ? "black" : "white";
    Object.assign(numbers, { x: there.map(c => c.x), y: there.map(c => c.y), text: there.map(c => label(c.v)),
      textfont: { ...numbers.textfont, color: there.map(c => ink(c.v)) } });
    const named = range(z.length).filter(y => S.domains[y % step]), texts = named.map(y => S.domains[y % step]);
    Object.assign(layout.yaxis, { tickvals: named, ticktext: texts, range: [z.length - .5, -.5] });
    layout.annotations.forEach((a, p) => { a.y = step * p + step / 2 - 1; });
    layout.margin.l = Math.min(170, Math.max(70, 24 + 8 * Math.max(...NAMES.map(name => name.length)))); // for long names
    const row = S.domains.indexOf(S.domain);
    layout.shapes = row < 0 ? [] : layout.shapes.map((s, p) => ({ ...s, x0: S.layer - .5, x1: S.layer + .5,
      y0: row + step * p - .5, y1: row + step * p + .5 }));
  },
  features({ data: [input, before, kept, removed, norms, marks] }) {
    const e = example(), g = gain(band), limit = Math.max(D.limits[S.layer], 1e-12);
    const inside = e.maps.map(z => transform(transform(z).map((v, i) => v * g[i]), true));
    const parts = [e.maps, inside, e.maps.map((z, c) => z.map((v, i) => v - inside[c][i]))];
    [before, kept, removed].forEach((trace, p) => { trace.source = paint(parts[p], limit); });
    input.source = e.input;
    norms.z = rows(e.norms);
    [marks.x, marks.y] = e.outliers;
  },
  difference({ data, layout }) {
    const z = change(S.scale === "share"), t = taken(band);
    const most = z.filter(Number.isFinite).reduce((a, v) => Math.max(a, Math.abs(v)), 1e-9);
    const lines = cutoffs(band).flatMap(cut => [...cutLine(cut), [null, null]]);
    const [heats, strokes] = ["heatmap", "scatter"].map(type => data.filter(trace => trace.type === type));
    heats.forEach((trace, i) => { trace.z = rows(i ? z.map((v, j) => v * t[j]) : z); });
    strokes.forEach(trace => Object.assign(trace, { x: lines.map(p => p[0]), y: lines.map(p => p[1]) }));
    Object.assign(layout.coloraxis, { cmin: -most, cmax: most });
    const [k, l] = S.coefficient;
    layout.shapes.forEach(s => Object.assign(s, { x0: l - .5, x1: l + .5, y0: k - .5, y1: k + .5 }));
  },
  coefficient({ data: [basis, bars] }) {
    const [k, l] = S.coefficient;
    basis.z = range(H).map(i => range(W).map(j => ROWS[k][i] * COLS[l][j]));
    Object.assign(bars, { x: S.domains.map(name => energyOf(name, S.layer)[k * W + l]), y: S.domains,
      marker: { ...bars.marker, color: S.domains.map(name => D.colors[name][0]) } });
  },
};
function cutLine(cut) { // an ellipse, or a square where the distance is max(k, l)
  const side = Math.trunc(cut * Math.min(H, W)), turn = range(181).map(i => i * Math.PI / 360);
  const line = band.filter === "piecewise" ? [[0, side], [side, side], [side, 0]]
    : turn.map(a => [W * cut * Math.cos(a), H * cut * Math.sin(a)]);
  return line.map(([x, y]) => x > W - .5 || y > H - .5 ? [null, null] : [x, y]);
}
const narrow = matchMedia("(max-width: 1000px)");
function draw(name) {
  const place = by("view-" + name), variants = D.figures[name], [k, l] = S.coefficient;
  place.parentElement.hidden = name === "features" && !D.images[S.domain];
  if (place.parentElement.hidden) return;
  const fig = structuredClone(variants[S.scale] || variants[S.cells] || variants.one);
  VIEWS[name](fig);
  fig.layout.title.text = fill(fig.layout.title.text, { ...S, layer: D.layers[S.layer], k, l });
  fig.layout.title.font = { size: narrow.matches ? 14 : 16 };
  return Plotly.react(place, fig.data, fig.layout, D.configs[name]);
}

// ---- controls
const CHOICES = ["filter", "domain", "reference", "scale", "cells"], SLIDERS = ["order", "layer", "image"].filter(by);
const waiting = new Set();
let frame = 0, rest = 0, ticking = 0;
function set(values) { // what a control, a preset or a click says; the first views follow at once, the others when it rests
  Object.assign(S, values);
  Object.keys(values).forEach(name => D.affects[name].filter(v => D.figures[v]).forEach(v => waiting.add(v)));
  const why = wrong(), [low, high] = S.cuts;
  if (!why) band = { filter: S.filter, low, high, order: S.order, dc: S.keep_dc };
  by("about").classList.toggle("wrong", !!why);
  by("about").textContent = why || D.about;
  sync();
  frame = frame || requestAnimationFrame(() => { frame = 0; flush(D.first); });
  clearTimeout(rest);
  rest = setTimeout(() => flush(Object.keys(D.figures)), 80);
}
function flush(names) { for (const name of names) if (waiting.delete(name)) draw(name); }
function sync() { // controls show the state
  for (const name of [...CHOICES, ...SLIDERS]) by(name).value = S[name];
  by("keep_dc").checked = S.keep_dc;
  [by("low").value, by("high").value] = S.cuts;
  const [from, to] = S.cuts.map(v => 100 * (v - by("low").min) / (by("low").max - by("low").min));
  by("track").style.background =
    `linear-gradient(90deg, var(--line) ${from}%, var(--blue) ${from}% ${to}%, var(--line) ${to}%)`;
  const cuts = S.cuts.map(v => v.toFixed(2)).join(" – ");
  const said = { cuts, order: S.order, layer: D.layers[S.layer], image: D.picks[S.image] };
  for (const o of document.querySelectorAll("output")) o.textContent = said[o.dataset.of];
  by("order").parentElement.hidden = S.filter !== "butterworth";
  for (const chip of by("domains").children) {
    const on = S.domains.includes(chip.value), [back, ink] = D.colors[chip.value];
    chip.setAttribute("aria-pressed", on);
    chip.style.cssText = on ? `background: ${back}; color: ${ink}` : "";
  }
}
function listen() {
  for (const name of CHOICES) by(name).oninput = e => set({ [name]: e.target.value });
  for (const name of SLIDERS) by(name).oninput = e => set({ [name]: +e.target.value });
  by("keep_dc").oninput = e => set({ keep_dc: e.target.checked });
  by("low").oninput = e => set({ cuts: [Math.min(+e.target.value, S.cuts[1]), S.cuts[1]] });
  by("high").oninput = e => set({ cuts: [S.cuts[0], Math.max(+e.target.value, S.cuts[0])] });
  for (const b of document.querySelectorAll("[data-preset]")) b.onclick = () => set(D.presets[b.dataset.preset]);
  for (const chip of by("domains").children) chip.onclick = () => {
    const on = NAMES.filter(name => S.domains.includes(name) !== (name === chip.value));
    if (on.length) set({ domains: on }); // the last one stays
  };
  by("play").onclick = () => {
    const stop = () => { clearInterval(ticking); ticking = 0; by("play").textContent = "▶"; };
    if (ticking) return stop();
    by("play").textContent = "■";
    ticking = setInterval(() => S.layer + 1 < D.layers.length ? set({ layer: S.layer + 1 }) : stop(), 700);
  };
  by("view-zones").on("plotly_click", ({ points: [p] }) => {
    const name = S.domains[p.y % (S.domains.length + 1)]; // panels stand under each other with an empty row between them
    if (name) set({ domain: name, layer: p.x });
  });
  by("view-difference").on("plotly_click", ({ points: [p] }) => set({ coefficient: [p.y, p.x] }));
}
async function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => { document.documentElement.dataset.jpThemeLight = !dark.matches; };
  dark.onchange = theme;
  theme(); // the style sheet of the live lab asks for JupyterLab's attribute
  if (!window.DecompressionStream) { by("about").textContent = by("old").textContent; return; }
  const packed = new Blob([bytes(by("plotly").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(Object.assign(document.createElement("script"), { textContent: await new Response(packed).text() }));
  set(S);
  flush(Object.keys(D.figures));
  for (const [name, fig] of Object.entries(D.still)) Plotly.newPlot("view-" + name, fig.data, fig.layout, D.configs[name]);
  listen();
  narrow.onchange = () => set(S);
  window.lab = { D, S, set, change, profile, energyOf, // for the browser's console
                 gain: () => gain(band), shares: () => shares(band), curve: () => curve(band) };
  document.body.dataset.ready = "yes";
}
start();
