/* The frequency lab, one module for two hosts: an anywidget in Jupyter, and the page that `export_html` writes. Python sends
   what a model's features hold, once (causal_tune.lab, `contents`); here it is filtered and drawn. What needs the model itself
   is asked of Python, where there is one.  h, w: grid; k, l: row and column of a coefficient; planes are flat, row by row, DC first. */
const range = n => Array.from({ length: n }, (_, i) => i), f32 = Math.fround, sigmoid = x => 1 / (1 + Math.exp(-x));
const clamp = (v, low, high) => Math.min(Math.max(v, low), high), total = values => values.reduce((a, b) => a + b, 0);
const bytesOf = view => new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// ---- elements: names and texts of data are text nodes and attributes, never markup
const maker = space => (tag, attributes = {}, ...children) => {
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node[name] = value;
    else if (value != null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter(child => child != null && child !== false));
  return node;
};
const h = maker(), s = maker("http://www.w3.org/2000/svg");
const label = (x, y, text, more = {}) => s("text", { x, y, "font-size": 12, fill: "currentColor", ...more }, String(text));
const RADIAL = "radial frequency", middle = { "text-anchor": "middle" }, soft = { opacity: .72 }, ORANGE = "#d55e00";
const stroke = (d, more = {}) => s("path", { d, fill: "none", stroke: "currentColor", ...more });
const box = (x, y, width, height, more) => s("rect", { x, y, width, height, ...more });
const short = (text, most) => // both ends tell
  text.length > most ? `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}` : text;
const cut = v => v.toFixed(2).replace(/^0/, "");
const power = k => "10" + String(k).replace(/./g, c => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);

// ---- the numbers: filters, what they take, what is left; the same formulas as in Python, in double precision
function numbers(D) {
  const [H, W] = D.grid, N = H * W, L = D.layers.length;
  const { low: lowest, step, codes } = D.energy, values = new Uint16Array(bytesOf(codes).buffer);
  const table = Float64Array.from({ length: 2 ** 16 }, (_, i) => i > 1 ? Math.exp(lowest + step * (i - 2)) : i ? 0 : NaN);
  const ENERGY = Float64Array.from(values, code => table[code]); // (models, domains, blocks, h, w)
  const row = (domain, model = D.models[0]) => D.models.indexOf(model) * D.domains.length + D.domains.indexOf(domain);
  const energyOf = (domain, layer, model) => ENERGY.subarray((row(domain, model) * L + layer) * N).subarray(0, N);

  // radii in single precision, as Python compares them
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
  const shape = b => OF_RADIUS[b.filter](b.low, b.high, b.order);
  const once = (make, kept) => b => (kept?.b === b ? kept : kept = { b, made: make(b) }).made; // bands are made anew, never changed
  const gain = once(b => {
    const side = Math.min(H, W), of = b.filter === "piecewise" ? null : shape(b);
    const g = R.map((r, i) => of ? of(r) : piecewise(Math.max(Math.floor(i / W), i % W), side, b.low, b.high));
    if (b.dc) g[0] = 1;
    return g;
  });
  function curve(b, n = 128) { // along an axis where the gain does not depend on the radius alone
    const step = i => b.dc && !i ? 1 : piecewise(i, n, b.low, b.high);
    if (b.filter === "piecewise") return { x: range(n).map(i => i / n), y: range(n).map(step) };
    const x = range(n).map(i => i * Math.SQRT2 / (n - 1));
    return { x, y: x.map(shape(b)) };
  }
  function cutoffs(b) { // a bell has none of its own: its radii of half the peak
    if (b.filter === "none") return [];
    if (b.filter !== "gaussian") return [b.low, b.high];
    const half = Math.sqrt(2 * Math.LN2) * (b.high - b.low) / 2, center = (b.low + b.high) / 2;
    return [center - half, center + half].filter(r => r > 0 && r < Math.SQRT2);
  }

  const taken = once(b => gain(b).map(g => (1 - g) ** 2));
  const ZONE = R.map(r => D.zones.filter(edge => r >= edge).length); // 0 low, 1 mid, 2 high
  const sum = (plane, from = 1) => { let all = 0; for (let i = from; i < plane.length; i++) all += plane[i]; return all; };
  const TOTAL = range(ENERGY.length / N).map(i => sum(ENERGY.subarray(i * N, i * N + N)));
  const shares = once(b => { // [all, low, mid, high][model and domain][block], without DC
    const t = taken(b), out = range(4).map(() => range(TOTAL.length / L).map(() => []));
    TOTAL.forEach((all, at) => {
      const zones = [0, 0, 0];
      for (let i = 1, j = at * N + 1; i < N; i++, j++) zones[ZONE[i]] += ENERGY[j] * t[i];
      [total(zones), ...zones].forEach((z, p) => out[p][Math.floor(at / L)].push(z / all)); // 0 / 0 is NaN: no energy
    });
    return out;
  });
  const RING = R.map(r => Math.min(Math.floor(r / Math.SQRT2 * D.rings), D.rings - 1));
  const sumRings = plane => { const out = Array(D.rings).fill(0); for (let i = 1; i < N; i++) out[RING[i]] += plane[i]; return out; };
  const COUNT = sumRings(R.map(() => 1)), SUMS = sumRings(R), THERE = range(D.rings).filter(i => COUNT[i]);
  const radii = THERE.map(i => SUMS[i] / COUNT[i]);
  const profile = (plane, share) => { // mean energy in each ring, or the ring's share in percent
    const sums = sumRings(plane), all = total(sums);
    return THERE.map(i => share ? 100 * sums[i] / all : sums[i] / COUNT[i]);
  };
  function change(a, b, share) { // per coefficient: dB, or points of the energy without DC
    if (!share) return a.map((e, i) => e > 0 && b[i] > 0 ? 10 * Math.log10(e / b[i]) : NaN);
    const [x, y] = [a, b].map(plane => Math.max(sum(plane), 1e-30));
    return a.map((e, i) => i ? 100 * (e / x - b[i] / y) : 0);
  }
  const BY_RADIUS = range(N).slice(1).sort((i, j) => R[i] - R[j]);
  function reach(plane, b, part = .9) { // the radius below which this part of what is removed lies
    const t = taken(b), all = sum(plane.map((e, i) => e * t[i]));
    let so_far = 0;
    return R[BY_RADIUS.find(i => (so_far += plane[i] * t[i]) >= part * all)];
  }

  const cosine = (n, k, j) => Math.cos(Math.PI * k * (2 * j + 1) / (2 * n)) * Math.sqrt((k ? 2 : 1) / n);
  const cosines = n => range(n).map(k => Float64Array.from({ length: n }, (_, j) => cosine(n, k, j)));
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
  function parts(maps, b) { // projections before, kept, removed
    const g = gain(b), kept = maps.map(z => transform(transform(z).map((v, i) => v * g[i]), true));
    return [maps, kept, maps.map((z, c) => z.map((v, i) => v - kept[c][i]))];
  }
  function projections(one, layer) { // of one image by one model: three planes, norms, outliers
    const codes = new Int8Array(bytesOf(one.maps).buffer, 3 * N * layer, 3 * N), peak = one.peaks[layer];
    const z = Float64Array.from(codes, q => q === -128 ? NaN : peak * Math.sign(q) * (q / 127) ** 2);
    const norms = bytesOf(one.norms).subarray(N * layer, N * layer + N), [low, high] = one.spans[layer];
    return { maps: range(3).map(c => z.subarray(c * N, c * N + N)), span: [low, high], outliers: one.outliers[layer],
             norms: Float64Array.from(norms, q => q === 255 ? NaN : low + (high - low) * q / 254) };
  }
  const wave = (k, l) => Float64Array.from({ length: N }, (_, i) => ROWS[k][Math.floor(i / W)] * COLS[l][i % W]);
  return { H, W, row, energyOf, gain, curve, cutoffs, taken, shares, radii, profile, change, reach, parts, projections, wave };
}

// ---- drawing: heat maps on canvases, all else as SVG in the pixels of its card
const colours = stops => range(256).map(i => { // between evenly spaced stops [r, g, b]
  const at = i / 255 * (stops.length - 1), j = Math.min(Math.floor(at), stops.length - 2);
  return stops[j].map((v, c) => Math.round(v + (at - j) * (stops[j + 1][c] - v)));
});
const luminance = rgb => total(rgb.map((v, c) => [.2126, .7152, .0722][c] * (v <= 10 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4)));
const ink = rgb => luminance(rgb) > .179 ? "black" : "white";
const step_of = (v, low, high) => clamp(Math.trunc(255 * (v - low) / (high - low)), 0, 255);
const steps = (low, high, most) => { // round numbers
  const rough = (high - low) / Math.max(most, 1), base = 10 ** Math.floor(Math.log10(rough));
  const step = base * [1, 2, 5, 10].find(m => m * base >= rough), from = Math.ceil(low / step - 1e-9);
  return range(Math.floor(high / step + 1e-9) - from + 1).map(i => +((from + i) * step).toPrecision(9));
};
const LEARNT = [[0, 114, 178], [204, 121, 167], [0, 158, 115], [230, 159, 0]]; // colours of filters, which everybody can tell apart
const MARKS = [ // domains differ by more than colour; paths around their middle
  "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "m-3.5-3.5h7v7h-7z", "m0-5l5 5l-5 5l-5-5z", "m0-5l5 8h-10z", "m0 5l5-8h-10z", "m-4-4l8 8v-8l-8 8z",
];
const mark = i => MARKS[i % MARKS.length], css = rgb => `rgb(${rgb.join()})`;
const points = (xs, ys) => xs.map((x, i) => Number.isFinite(ys[i]) ? `${x.toFixed(2)} ${ys[i].toFixed(2)}` : null);
const path = (xs, ys) => points(xs, ys).map((at, i, all) => at && (i && all[i - 1] ? "L" : "M") + at).join(""); // with gaps
const line = (one, xs, ys, width = 2) =>
  stroke(path(xs, ys), { stroke: css(one.color), "stroke-width": width, "stroke-dasharray": one.dash });
const dots = (one, xs, ys) =>
  stroke(points(xs, ys).map(at => at && `M${at}${one.mark}`).join(""), { fill: css(one.color), "stroke-width": .6 });
const small = { "font-size": 11.5 };
function axes({ x, y, w, h: height }, across, up) { // each: ticks, at, text, title; `right` puts them on the other side
  const side = up.right ? x + w : x, out = up.right ? 1 : -1;
  return [
    across && across.ticks.map(v => [stroke(`M${across.at(v)} ${y + height}v4`, { opacity: .5 }),
      label(across.at(v), y + height + 17, across.text(v), { ...middle, ...small })]),
    across?.title && label(x + w / 2, y + height + 35, across.title, { ...middle, ...soft }),
    up.grid && stroke(up.ticks.map(v => `M${x} ${up.at(v)}h${w}`).join(""), { opacity: .1 }),
    up.ticks.map(v => [stroke(`M${side} ${up.at(v)}h${4 * out}`, { opacity: .5 }),
      label(side + 7 * out, up.at(v) + 4, up.text(v), { "text-anchor": up.right ? "start" : "end", ...small })]),
    up.title && label(0, 0, up.title, { ...middle, ...soft, transform: `translate(${side + up.far * out} ${y + height / 2}) rotate(-90)` }),
  ];
}
function legend(rows, left, top, right) { // lines, marks and names, in as many rows as they need
  let x = left, y = top;
  const nodes = rows.map(one => {
    const name = short(one.name, 36), wide = 38 + 6.6 * name.length;
    if (x > left && x + wide > right) { x = left; y += 19; }
    x += wide;
    const at = x - wide;
    return [line(one, [at, at + 22], [y - 4, y - 4], 1.5), dots(one, [at + 11], [y - 4]), label(at + 27, y, name)];
  });
  return { nodes, bottom: y };
}
function paint(canvas, columns, rows, colour) { // colour: number of a pixel -> [r, g, b], or null for an empty one
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows), out = image.data;
  for (let i = 0; i < columns * rows; i++) {
    const rgb = colour(i);
    if (!rgb) continue;
    for (let c = 0; c < 3; c++) out[4 * i + c] = rgb[c];
    out[4 * i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}
const shades = (values, scale, low, high) => i => values[i] === values[i] ? scale[step_of(values[i], low, high)] : null; // NaN stays empty
function heat(card, slot, { x, y, w, h: height }, values, columns, scale, low, high) {
  const canvas = card.canvases[slot] ||= card.body.insertBefore(h("canvas", { "aria-hidden": "true" }), card.svg);
  canvas.style.cssText = `left:${x}px;top:${y}px;width:${w}px;height:${height}px`;
  paint(canvas, columns, values.length / columns, shades(values, scale, low, high));
}
function bar(card, slot, x, y, height, scale, low, high, unit) { // what the colours stand for
  heat(card, slot, { x, y, w: 11, h: height }, range(64).map(i => high - (high - low) * i / 63), 1, scale, low, high);
  const at = v => y + height * (high - v) / (high - low) + 4;
  return [label(x, y - 8, unit, { ...small, ...soft }), steps(low, high, 5).map(v => label(x + 16, at(v), +v.toPrecision(3), small))];
}
function show(card, height, children, acts = {}) { // acts: tell(x, y) -> text, click(x, y), move(dx, dy)
  card.svg.setAttribute("width", card.width);
  card.svg.setAttribute("height", height);
  card.svg.replaceChildren(...children.flat(Infinity).filter(child => child != null && child !== false));
  Object.assign(card, { tell: null, click: null, move: null }, acts);
}
// planes of coloured cells in areas; tell(row, column, area) -> text, go(row, column), chosen() -> [row, column]
function cells(card, areas, planes, columns, { scale, low, high, unit, ring = ORANGE, tell, go, chosen }) {
  const rows = planes[0].length / columns, first = areas[0], last = areas[areas.length - 1], at = chosen?.();
  areas.forEach((area, p) => heat(card, p, area, planes[p], columns, scale, low, high));
  const within = ({ x, y, w, h: height }) => // what is drawn in it counts in cells
    ({ transform: `translate(${x} ${y}) scale(${w / columns} ${height / rows})`, "vector-effect": "non-scaling-stroke" });
  const ringed = area => box(at[1], at[0], 1, 1, { ...within(area), fill: "none", stroke: ring, "stroke-width": 2.5 });
  const tall = Math.min(160, last.y + last.h - first.y - 20);
  const meaning = bar(card, areas.length, last.x + last.w + 14, first.y + 14, tall, scale, low, high, unit);
  const find = (px, py) => areas.map(({ x, y, w, h: height }, p) => [(py - y) / height * rows, (px - x) / w * columns, p].map(Math.floor))
    .find(([i, j]) => i >= 0 && i < rows && j >= 0 && j < columns);
  return {
    within, nodes: [at && at[0] >= 0 && areas.map(ringed), meaning],
    acts: {
      tell: (px, py) => { const hit = find(px, py); return hit && tell(...hit); },
      click: go && ((px, py) => { const hit = find(px, py); if (hit) go(hit[0], hit[1]); }),
      move: go && ((dx, dy) => { const [i, j] = chosen(); go(clamp(Math.max(i, 0) + dy, 0, rows - 1), clamp(j + dx, 0, columns - 1)); }),
    },
  };
}

// ---- the lab in an element. link: told(values), ask(content, buffers), live, figures, load() -> Plotly
function open(root, D, start, link) {
  const S = { ...start }, F = numbers(D), { H, W } = F, several = D.models.length > 1;
  const [grey, diverging] = ["cividis", "diverging"].map(name => colours(D.scales[name])), zone_edges = D.zones.map(cut);
  const ZONES = ["everywhere", `below ${zone_edges[0]}`, `from ${zone_edges.join(" to ")}`, `above ${zone_edges[1]}`];
  const cards = {}, controls = [], answers = new Map(), untold = new Set();
  let band = { filter: "dog", low: .2, high: .7 }, dark = false, refiltered = false, frame = 0, rest = 0, ticking = 0, asked = "";

  const block = () => D.layers[S.layer], hue = rgb => dark && luminance(rgb) < .1 ? rgb.map(v => Math.round(v * .6 + 102)) : rgb;
  const name_of = (domain, model) => several ? `${model} · ${domain}` : domain;
  const series = () => D.models.flatMap((model, m) => S.domains.map(domain => ({
    model, domain, name: name_of(domain, model), row: F.row(domain, model), plane: F.energyOf(domain, S.layer, model),
    color: hue(D.colors[domain]), mark: mark(D.domains.indexOf(domain)), dash: m ? "6 4" : null,
  })));
  const looked = () => F.energyOf(S.domain, S.layer, S.model), against = () => F.energyOf(S.reference, S.layer, S.against);
  const compared = () => `${name_of(S.domain, S.model)} against ${name_of(S.reference, S.against)}: block ${block()}`;
  function titled(card, title, sub = "") {
    card.title.textContent = title;
    card.sub.textContent = sub;
    card.svg.setAttribute("aria-label", `${title}. ${sub}`);
  }
  function absent(card, title, why) {
    titled(card, title, why);
    card.pictures?.replaceChildren();
    card.answer = null;
    show(card, 0, []);
  }

  const VIEWS = {
    curves(card) {
      const area = { x: 56, y: 24, w: card.width - 110, h: 200 }, share = S.scale === "share", rows = series();
      const energies = rows.map(one => [share ? NaN : one.plane[0], ...F.profile(one.plane, share)]); // DC, then rings
      const seen = energies.flat().filter(e => e > 0), [least, most] = seen.length ? [Math.min(...seen), Math.max(...seen)] : [1, 10];
      const [low, high] = share ? [0, 1.05 * most] : [Math.floor(Math.log10(least)), Math.ceil(Math.log10(most) + .01)];
      const x = r => area.x + area.w * (r + .03) / (Math.SQRT2 + .03), level = e => share ? e : Math.log10(e);
      const y = e => area.y + area.h * (high - level(e)) / (high - low), top = g => area.y + area.h * (1.02 - g) / 1.02;
      const gain = F.curve(band), gains = path(gain.x.map(x), gain.y.map(top)), right = x(gain.x[gain.x.length - 1]);
      const across = { ticks: steps(0, 1.4, card.width < 480 ? 4 : 7), at: x, text: String, title: `${RADIAL} (share of Nyquist)` };
      const up = share ? { ticks: steps(low, high, 5), at: y, text: String, title: "share of energy per ring (%)" }
        : { ticks: range(high - low + 1).map(i => low + i), at: v => y(10 ** v), text: power, title: "energy per coefficient" };
      const named = legend(rows, area.x, 286, card.width), xs = [0, ...F.radii].map(x);
      titled(card, `What the filter keeps: block ${block()}`, "energy by radius; marks at 0 are DC");
      show(card, named.bottom + 10, [
        stroke(`${gains}L${right} ${area.y}L${x(0)} ${area.y}Z`, { fill: "currentColor", "fill-opacity": .1, stroke: "none" }),
        axes(area, across, { ...up, grid: true, far: 44 }),
        axes(area, null, { ticks: [0, .25, .5, .75, 1], at: top, text: v => v % 1 ? cut(v) : v, right: true, far: 40, title: "gain" }),
        F.cutoffs(band).map(r => stroke(`M${x(r)} ${area.y}v${area.h}`, dotted)),
        F.cutoffs(band).map(r => label(x(r), area.y - 6, cut(r), { ...middle, ...small, fill: ORANGE })),
        stroke(gains, { "stroke-width": 2, "stroke-dasharray": "7 4" }),
        rows.map((one, i) => [line(one, xs.slice(1), energies[i].slice(1).map(y)), dots(one, xs, energies[i].map(y))]),
        named.nodes,
      ], { tell: px => {
        if (px < area.x || px > area.x + area.w) return null;
        const far = F.radii.map(r => Math.abs(x(r) - px)), i = far.indexOf(Math.min(...far));
        const said = rows.map((one, j) => `${one.name}: ${energies[j][i + 1].toPrecision(3)}${share ? " %" : ""}`);
        return [`radius ${cut(F.radii[i])}`, ...said].join("\n");
      } });
    },
    plane(card) {
      titled(card, `The same on the plane of ${H} × ${W} coefficients`, "gain; DC at the top left");
      heatmap(card, [F.gain(band)], 196, { scale: grey, low: 0, high: 1, unit: "gain" });
    },
    zones(card) {
      const rows = series(), by_model = S.cells === "change by model", differs = S.cells !== "share removed";
      const base = one => by_model ? F.row(one.domain) : F.row(S.reference, S.against);
      const values = F.shares(band).map(zone => rows.map(one => zone[one.row].map((v, l) => 100 * (differs ? v - zone[base(one)][l] : v))));
      const than = by_model ? `by ${D.models[0]}` : `in ${name_of(S.reference, S.against)}`;
      titled(card, "Energy removed, by block and domain", differs ? `points more than ${than}` : "percent of the energy without DC");
      table(card, { heads: ZONES, rows: rows.map(one => one.name), columns: D.layers, values, differs, title: "block (from 0)",
        chosen: () => [rows.findIndex(one => one.domain === S.domain && one.model === (S.model ?? D.models[0])), S.layer],
        go: (i, layer) => set({ domain: rows[i].domain, layer, ...several && { model: rows[i].model } }) });
    },
    difference(card) {
      const share = S.scale === "share", z = F.change(looked(), against(), share), t = F.taken(band), unit = share ? "points" : "dB";
      const most = z.reduce((a, v) => Number.isFinite(v) ? Math.max(a, Math.abs(v)) : a, 1e-9);
      const [one, other] = card.width > 560 ? ["left", "right"] : ["above", "below"];
      titled(card, compared(), `${unit}; ${one} the change, ${other} what of it the filter removes`);
      heatmap(card, [z, z.map((v, i) => v * t[i])], 250, { scale: diverging, low: -most, high: most, unit, ring: "black",
        chosen: () => S.coefficient, go: (k, l) => set({ coefficient: [k, l] }) });
    },
    coefficient(card) {
      const [k, l] = S.coefficient, rows = series(), wave = F.wave(k, l), most = Math.max(...wave.map(Math.abs)), tall = 28;
      const side = Math.min(card.width * .4, 220), image = { x: 8, y: 12, w: side, h: side * Math.min(H / W, 1.1) };
      const found = rows.map(one => one.plane[k * W + l]), top = Math.max(...found.filter(Number.isFinite), 1e-30);
      const x = side + 28, width = card.width - x - 12, long = i => Math.max(width * found[i] / top || 0, 1);
      titled(card, `Coefficient: vertical ${k}, horizontal ${l}`, "its pattern, and how much of it each domain has");
      heat(card, 0, image, wave, W, range(256).map(i => [i, i, i]), -most, most);
      show(card, Math.max(image.h, tall * rows.length) + 24, rows.map((one, i) => [
        label(x, 20 + i * tall, `${short(one.name, Math.floor(width / 7) - 6)}: ${found[i].toPrecision(3)}`, small),
        box(x, 24 + i * tall, long(i), 6, { fill: css(one.color), stroke: "currentColor", "stroke-width": .5 })]),
        { tell: () => rows.map((one, i) => `${one.name}: ${found[i].toPrecision(4)}`).join("\n") });
    },
  };
  const dotted = { stroke: ORANGE, "stroke-width": 1.5, "stroke-dasharray": "2 3" };
  function heatmap(card, planes, height, options) { // planes of coefficients side by side, or under each other
    const n = planes.length, wide = n < 2 || card.width > 560, w = (card.width - 124 - (wide ? 30 * (n - 1) : 0)) / (wide ? n : 1);
    const areas = planes.map((_, i) => ({ x: 52 + (wide ? i * (w + 30) : 0), y: 12 + (wide ? 0 : i * (height + 52)), w, h: height }));
    const tell = (k, l, p) => `vertical ${k}, horizontal ${l}: ${planes[p][k * W + l].toPrecision(3)} ${options.unit}`;
    const grid = cells(card, areas, planes, W, { ...options, tell });
    const edges = n > 1 ? F.cutoffs(band).map(edge => path(...cut_line(edge))).join("") : "";
    const across = { ticks: steps(0, W - 1, w / 60), text: String, title: "horizontal frequency (half-cycles)" };
    const up = { ticks: steps(0, H - 1, 6), text: String, far: 36, title: "vertical" };
    show(card, areas[n - 1].y + height + 42, [
      areas.map((area, i) => [
        axes(area, { ...across, at: l => area.x + w * (l + .5) / W },
          { ...up, at: k => area.y + height * (k + .5) / H, ...wide && i && { title: null } }),
        stroke(edges, { ...grid.within(area), stroke: "white", "stroke-width": 3, opacity: .6 }),
        stroke(edges, { ...grid.within(area), stroke: "black", "stroke-width": 1.5, "stroke-dasharray": "6 4" })]),
      grid.nodes,
    ], grid.acts);
  }
  function cut_line(edge) { // columns, rows of an ellipse, or of a square where the distance is max(k, l); cut where the plane ends
    const side = Math.trunc(edge * Math.min(H, W)), turn = range(91).map(i => i * Math.PI / 180);
    const round = turn.map(a => [W * edge * Math.cos(a), H * edge * Math.sin(a)]);
    const at = band.filter === "piecewise" ? [[0, side], [side, side], [side, 0]] : round;
    const kept = at.map(([l, k]) => l > W - .5 || k > H - .5 ? [NaN, NaN] : [l + .5, k + .5]);
    return [kept.map(([l]) => l), kept.map(([, k]) => k)];
  }
  function table(card, { heads, rows, columns, values, differs, chosen, go, title, tilt }) { // panels of numbers under each other
    const left = clamp(14 + 7 * Math.max(...rows.map(name => name.length)), 40, Math.min(150, card.width * .3));
    const tall = clamp(Math.floor(440 / (heads.length * rows.length)), 17, 27), w = card.width - left - 62, cell = w / columns.length;
    const most = values.flat(2).reduce((a, v) => v === v ? Math.max(a, Math.abs(v)) : a, differs ? .1 : 1);
    const high = differs ? most : 10 * Math.ceil(most / 10), low = differs ? -high : 0, scale = differs ? diverging : grey;
    const digits = high >= (differs ? 10 : 20) ? 0 : 1, unit = differs ? "points" : "%";
    const signed = (v, digits) => // no sign before a zero
      ((differs && v > 0 ? "+" : "") + v.toFixed(digits)).replace(/^[+-](0(\.0*)?)$/, "$1");
    const areas = heads.map((head, p) => ({ x: left, y: (head ? 24 : 8) + p * (tall * rows.length + 26), w, h: tall * rows.length }));
    const bottom = areas[heads.length - 1].y + tall * rows.length, every = Math.max(Math.ceil(17 / cell), 1), at = chosen?.();
    const place = (j, p) => [`${title ? "block " : ""}${columns[j]}`, heads[p]].filter(Boolean).join(", ");
    const tell = (i, j, p) => values[p][i][j] === values[p][i][j] && `${rows[i]}, ${place(j, p)}: ${signed(values[p][i][j], 2)}`;
    const grid = cells(card, areas, values.map(lines => lines.flat()), columns.length, { scale, low, high, unit, chosen, go, tell });
    const upright = range(columns.length + 1).map(j => `M${j} 0v${rows.length}`).join("");
    const gaps = upright + range(rows.length + 1).map(i => `M0 ${i}h${columns.length}`).join("");
    const bold = yes => yes && { "font-weight": 700 }, half = i => (i + .5) * tall + 4, room = Math.max(Math.floor((left - 12) / 7), 4);
    const number = (v, i, j, y) => v === v && label(left + (j + .5) * cell, y + half(i), signed(v, digits),
      { ...middle, "font-size": cell < 30 ? 10 : 11.5, fill: ink(scale[step_of(v, low, high)]) });
    show(card, bottom + (tilt ? 110 : 46), [
      areas.map((area, p) => [
        stroke(gaps, { ...grid.within(area), stroke: "var(--ct-card, #fff)" }), label(left, area.y - 7, heads[p], bold(true)),
        rows.map((name, i) => s("g", {}, s("title", {}, name),
          label(left - 8, area.y + half(i), short(name, room), { "text-anchor": "end", ...bold(i === at?.[0]) }))),
        cell >= 17 && values[p].map((cells, i) => cells.map((v, j) => number(v, i, j, area.y)))]),
      columns.map((name, j) => j % every ? null : label(0, 0, short(String(name), 18), { "text-anchor": tilt ? "end" : "middle", ...small,
        ...bold(j === at?.[1]), transform: `translate(${left + (j + .5) * cell} ${bottom + 14}) rotate(${tilt ? -50 : 0})` })),
      title && label(left + w / 2, bottom + 36, title, { ...middle, ...soft }), grid.nodes,
    ], grid.acts);
  }

  // ---- pictures
  const shown = src => h("img", { src, alt: "" });
  const figure = (head, ...nodes) => h("figure", {}, h("div", { class: "ct-picture" }, nodes), h("figcaption", {}, head));
  const pictured = (card, rows) => card.pictures.replaceChildren(...rows.map(row => h("div", { class: "ct-row" }, row)));
  const painted = (planes, limit) => paint(h("canvas"), W, H, i => planes.map(z => 255 * (.5 + z[i] / (2 * limit)))); // 0 is grey
  function norm_map({ norms, span: [low, high], outliers: [xs, ys] }) {
    const cross = xs.map((x, i) => `M${x + .1} ${ys[i] + .1}l.8 .8m0-.8l-.8 .8`).join("");
    const drawn = [["white", .3], [ORANGE, .18]].map(([stroked, width]) => stroke(cross, { stroke: stroked, "stroke-width": width }));
    return [paint(h("canvas"), W, H, shades(norms, grey, low, high || 1)),
      s("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none" }, drawn)];
  }
  VIEWS.features = card => {
    const all = D.images[S.domain], limit = Math.max(D.limits[S.layer], 1e-12);
    const title = `One image of ${S.domain}: features of block ${block()} in three principal directions`;
    if (!all?.length) return absent(card, title, "no example images of this domain fitted into this page");
    const one = all[Math.min(S.image, all.length - 1)];
    titled(card, title, several ? D.shared ? "the same directions for all models" : "each model has directions of its own" : "");
    pictured(card, one.models.map((of, m) => {
      const found = F.projections(of, S.layer), [low, high] = found.span.map(v => +v.toPrecision(3));
      const parts = F.parts(found.maps, band).map((planes, i) => figure(["before", "kept", "removed"][i], painted(planes, limit)));
      const norms = figure(`token norm, ${low} to ${high} (×: outliers)`, norm_map(found));
      return [figure(several ? D.models[m] : "input", shown(one.input)), parts, norms];
    }));
  };
  const question = (of = S) => JSON.stringify(["domain", "image", "domains", "filter", "cuts", "order", "keep_dc"].map(name => of[name]));
  if (D.answer) answers.set(question(D.state), D.answer);
  VIEWS.segmentation = card => {
    const answer = answers.get(question()), title = `One image of ${S.domain}: segmentation`;
    const why = link.live ? "asking the model; a running kernel answers …" : "the model is not in this page: open the lab in Jupyter";
    if (!answer) return absent(card, title, why);
    titled(card, title, answer.rows[0].model ? "a row for each model" : "");
    const head = (row, i) => row.model && !i ? `${row.model}: ${row.heads[0]}` : row.heads[i];
    if (card.answer !== answer) pictured(card, answer.rows.map(row => row.pictures.map((src, i) => figure(head(row, i), shown(src)))));
    card.answer = answer;
  };
  VIEWS.iou = card => {
    const answer = answers.get(question()), found = answer?.iou, title = "Change of IoU by the filter";
    card.node.hidden = !visible("iou") || !D.labelled;
    if (!found?.rows.length) return absent(card, title, !answer && !link.live ? "this needs the model" : "counting …");
    titled(card, title, found.done < found.all ? `counting: ${found.done} of ${found.all} images` : "points, filtered minus as it is");
    const values = [found.change.map(line => line.map(v => v == null ? NaN : 100 * v))];
    table(card, { heads: [""], rows: found.rows, columns: found.classes, values, differs: true, tilt: true });
  };
  const drawn = async (card, figure, adapt) => { // a plotly figure that Python has made
    if (!figure) return;
    const made = structuredClone(figure), { layout } = made, light = dark ? "#e6e8eb" : "#1c1e21", P = await link.load();
    const house = layout.template.layout, grid = dark ? "#3a3f46" : "#e8e8e8", none = "rgba(0,0,0,0)";
    for (const axis of [house.xaxis, house.yaxis]) axis.gridcolor = grid;
    for (const one of layout.shapes ?? []) if (one.type === "line") one.line.color = light; // cut-offs
    const margin = { ...house.margin, ...layout.margin, t: Math.max((layout.margin?.t ?? 60) - 30, 30) };
    const width = Math.max(card.width, 640); // no narrower than can be read
    Object.assign(layout, { title: "", font: { color: light }, margin, width, paper_bgcolor: none, plot_bgcolor: none });
    adapt?.(layout);
    if (same(made, card.made)) return;
    card.made = structuredClone(made); // plotly writes into what it is given
    await P.react(card.plotly, made.data, layout, { displaylogo: false, displayModeBar: false });
  };
  VIEWS.information = card => {
    titled(card, "What linear probes tell from one band of the features", link.figures.of ? `model: ${link.figures.of}` : "");
    const { x, y } = F.curve(band, 2001), half = Math.max(...y) / 2, under = x.filter((_, i) => y[i] > half);
    const span = { x0: under[0], x1: under[under.length - 1] };
    return drawn(card, link.figures.information, ({ shapes }) => shapes.forEach(one => one.type === "rect" && Object.assign(one, span)));
  };
  VIEWS.outliers = card => {
    titled(card, "Tokens of outlying norm", `filter: ${link.figures.filter}`);
    return drawn(card, link.figures.outliers);
  };
  VIEWS.benchmark = card => {
    titled(card, `Benchmark: ${S.experiment}`);
    return drawn(card, D.benchmark[S.experiment][S.baseline]);
  };
  VIEWS.learnt = card => { // filters that were trained: the ways of their edges, and where they ended
    const rows = D.learnt.map((one, i) => ({ ...one, color: hue(LEARNT[i % LEARNT.length]), mark: mark(i), at: 26 * (i + 1),
      dash: i < LEARNT.length ? null : "6 4", name: `${one.name}: ${one.now.map(cut).join(" to ")}` }));
    const last = Math.max(0, ...rows.flatMap(one => one.path.map(([done]) => done))), bars = 26 * rows.length + 16;
    const area = { x: 56, y: 12, w: card.width - 70, h: 190 }, ends = area.x + (last && area.w - bars);
    const top = 1.05 * Math.max(1, ...rows.flatMap(one => [one.now[1], ...one.path.map(([, , high]) => high)]));
    const x = done => area.x + (area.w - bars) * done / Math.max(last, 1), y = r => area.y + area.h * (1 - r / top);
    const across = last ? { ticks: steps(0, last, (area.w - bars) / 90), at: x, text: String, title: "iterations" } : null;
    const named = legend(rows, area.x, area.h + 66, card.width);
    titled(card, "Filters that were learnt: their cut-offs",
      last ? "over the iterations of the run, and as they are" : "as they are; the folder of the run would tell the way");
    show(card, named.bottom + 10, [
      axes(area, across, { ticks: steps(0, top, 5), grid: true, at: y, text: cut, far: 44, title: RADIAL }),
      F.cutoffs(band).map(r => stroke(`M${area.x} ${y(r)}h${area.w}`, dotted)),
      rows.map(one => {
        const bar = [one.now.map(() => ends + one.at), one.now.map(y)], iterations = one.path.map(row => x(row[0]));
        const ways = [1, 2].map(edge => line(one, iterations, one.path.map(row => y(row[edge]))));
        return [ways, line({ ...one, dash: null }, ...bar, 3), dots(one, ...bar)];
      }),
      named.nodes,
    ]);
  };
  function words() { // the lab in sentences
    const percent = v => `${(100 * v).toFixed(v < .0995 ? 1 : 0)} %`, shares = F.shares(band), on = S.filter !== "none";
    const rows = series().map(one => ({ ...one, v: shares.map(zone => zone[one.row][S.layer]) }));
    const order = S.filter === "butterworth" && `order ${S.order}`;
    const filter = [D.filters[S.filter], on && S.cuts.map(cut).join(" to "), order, S.keep_dc && "DC passes"].filter(Boolean);
    const lines = rows.map(one => {
      const edge = F.reach(one.plane, band), tenths = one.v[0] > 1e-6 && edge ? `; nine tenths of that lie below ${cut(edge)}` : "";
      const parts = [1, 2, 3].map(zone => `${percent(one.v[zone])} ${ZONES[zone]}`).join(", ");
      const dc = `DC holds ${percent(one.plane[0] / total(one.plane))} of all energy and is left out.`;
      return `${one.name}: ${percent(one.v[0])} of the energy is removed (${parts})${tenths}. ${dc}`;
    });
    const takes = rows.sort((a, b) => b.v[0] - a.v[0]).map(one => `${percent(one.v[0])} of ${one.name}`);
    const ends = [...new Set([takes[0], takes[takes.length - 1]])].join(" and ");
    return [`At block ${block()} the filter takes ${ends}. (Filter: ${filter.join(", ")}.)`, ...lines];
  }
  VIEWS.words = card => {
    titled(card, "In words", "for a caption");
    card.words.replaceChildren(...words().map(line => h("p", {}, line)));
  };

  // ---- controls: plain elements, which a keyboard and a screen reader know
  const titles = name => D.labels[name] ?? name;
  const framed = (tag, name, more, nodes) =>
    h(tag, { class: "ct-field", "data-of": name, ...more }, h("span", {}, titles(name)), h("span", { class: "ct-line" }, nodes));
  const field = (name, ...nodes) => framed("label", name, {}, nodes); // one control
  const group = (name, ...nodes) => framed("div", name, { role: "group", "aria-label": titles(name) }, nodes); // several
  const control = (node, sync) => { controls.push(sync); return node; };
  function choice(name) {
    const select = h("select", { "aria-label": D.labels[name], oninput: e => set({ [name]: e.target.value }) });
    return control(field(name, select), () => {
      const options = name === "baseline" ? Object.keys(D.benchmark[S.experiment]) : D.choices[name];
      const made = o => h("option", { value: o }, name === "filter" ? D.filters[o] : o);
      if (!same(options, [...select.options].map(o => o.value))) select.replaceChildren(...options.map(made));
      select.value = S[name];
    });
  }
  function slider(name, said = v => v) {
    const [min, max] = D.ranges[name], out = h("output");
    const input = h("input", { type: "range", min, max, oninput: e => set({ [name]: +e.target.value }) });
    return control(field(name, input, out), () => {
      input.value = S[name];
      input.setAttribute("aria-valuetext", out.textContent = said(S[name]));
    });
  }
  function chips(name) {
    const toggle = option => {
      const on = D.choices[name].filter(o => S[name].includes(o) !== (o === option));
      if (on.length || name !== "domains") set({ [name]: on }); // the last one stays
    };
    const mark_of = i => s("svg", { width: 12, height: 12, "aria-hidden": true }, s("path", { d: `M6 6${mark(i)}`, fill: "currentColor" }));
    const buttons = D.choices[name].map((option, i) => {
      const inside = [name === "domains" && mark_of(i), h("span", {}, option)];
      return button(inside, () => toggle(option), { class: "ct-chip", title: option });
    });
    return control(group(name, buttons), () => buttons.forEach((button, i) => {
      const option = D.choices[name][i], on = S[name].includes(option), rgb = name === "domains" ? D.colors[option] : [0, 98, 155];
      button.setAttribute("aria-pressed", on);
      button.style.cssText = on ? `background:${css(rgb)};color:${ink(rgb)};border-color:${css(rgb)}` : "";
    }));
  }
  function edges() { // two ranges over each other, which stop at each other
    const [least, most] = D.ranges.cuts, out = h("output"), track = h("span", { class: "ct-track" });
    const moved = (i, v) => set({ cuts: i ? [S.cuts[0], Math.max(v, S.cuts[0])] : [Math.min(v, S.cuts[1]), S.cuts[1]] });
    const inputs = ["low", "high"].map((edge, i) => h("input", { type: "range", class: `ct-${edge}`, min: least, max: most, step: .01,
      "aria-label": `${edge} cut-off`, oninput: e => moved(i, +e.target.value) }));
    return control(group("cuts", h("span", { class: "ct-two-ends" }, track, inputs), out), () => {
      inputs.forEach((input, i) => { input.value = S.cuts[i]; });
      const [from, to] = S.cuts.map(v => 100 * (v - least) / (most - least));
      track.style.background = `linear-gradient(90deg, var(--ct-line) ${from}%, var(--ct-blue) ${from}% ${to}%, var(--ct-line) ${to}%)`;
      out.textContent = S.cuts.map(v => v.toFixed(2)).join(" – ");
    });
  }
  function flag(name) {
    const input = h("input", { type: "checkbox", oninput: e => set({ [name]: e.target.checked }) });
    return control(field(name, input), () => { input.checked = S[name]; });
  }
  const button = (inside, onclick, more = {}) => h("button", { type: "button", onclick, ...more }, inside);
  const play = button("▶", () => {
    const stop = () => { clearInterval(ticking); ticking = 0; play.textContent = "▶"; };
    if (ticking) return stop();
    play.textContent = "■";
    ticking = setInterval(() => S.layer + 1 < D.layers.length && root.isConnected ? set({ layer: S.layer + 1 }) : stop(), 700);
  }, { "aria-label": "play the blocks", class: "ct-play" });
  const about = h("p", { class: "ct-about", role: "status" }), tip = h("div", { class: "ct-tip", hidden: true });
  const measure = button("Measure", () => link.ask({ ask: "measure" }), { class: "ct-main", disabled: !link.live });
  const presets = Object.entries(D.presets).map(([name, values]) => button(name, () => set(values)));
  const chosen = ["model", "domain", "against", "reference"].filter(name => D.choices[name]).map(choice);
  const header = h("header", { class: "ct-bar" }, h("h1", {}, "Frequency lab"), choice("filter"), group("presets", presets), edges(),
    slider("order"), group("play", play), slider("layer", v => D.layers[v]), chips("domains"), chosen,
    D.picks.length > 1 && slider("image", v => D.picks[v]), choice("scale"), choice("cells"), flag("keep_dc"), chips("views"), about);

  // ---- cards
  const groups = { coefficient: "difference", iou: "segmentation", information: "evidence", outliers: "evidence", measure: "evidence" };
  const visible = name => { const of = groups[name] || name; return !D.optional.includes(of) || S.views.includes(of); };
  const HOLDS = { pictures: ["features", "segmentation"], plotly: ["information", "outliers", "benchmark"], words: ["words"] };
  function card(name) {
    const made = cards[name] = { name, width: 600, canvases: [], title: h("h2"), sub: h("span", { class: "ct-sub" }) };
    const kind = Object.keys(HOLDS).find(kind => HOLDS[kind].includes(name)); // beside an SVG
    made.svg = s("svg", { role: "img", width: 0, height: 0 });
    if (kind) made[kind] = h("div", { class: `ct-${kind}` });
    made.body = h("div", { class: "ct-body" }, made.svg, made[kind]);
    const save = kind => button(kind, () => download(made, kind), { "aria-label": `save as ${kind}` });
    const tools = name === "words" ? button("Copy", e => copy(words().join("\n"), e.target)) : ["SVG", "PNG"].map(save);
    const head = h("div", { class: "ct-head" }, made.title, made.sub, h("span", { class: "ct-tools" }, tools));
    const choices = name === "benchmark" && h("div", { class: "ct-bar" }, choice("experiment"), choice("baseline"));
    const note = h("p", { class: "ct-note" }, D.captions[name]);
    made.node = h("section", { class: "ct-card", "data-view": name }, head, choices, made.body, note);
    made.body.onpointermove = e => tell(made, e);
    made.body.onpointerleave = () => { tip.hidden = true; };
    made.svg.onclick = e => made.click?.(...place(made, e));
    if (["zones", "difference"].includes(name)) made.svg.setAttribute("tabindex", 0);
    made.svg.onkeydown = e => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
      if (by && made.move) { e.preventDefault(); e.stopPropagation(); made.move(...by); }
    };
    return made.node;
  }
  const place = (card, e) => { const at = card.body.getBoundingClientRect(); return [e.clientX - at.left, e.clientY - at.top]; };
  function tell(card, e) {
    const text = card.tell?.(...place(card, e)), at = root.getBoundingClientRect();
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    tip.style.cssText = `left:${clamp(e.clientX - at.left + 14, 0, at.width - tip.offsetWidth - 4)}px;top:${e.clientY - at.top + 16}px`;
  }
  const why = link.live ? D.captions.measure : "measuring needs the model: open the lab in Jupyter";
  const measuring = h("section", { class: "ct-card", "data-view": "measure" },
    h("div", { class: "ct-head" }, h("h2", {}, "Evidence"), measure, h("span", { class: "ct-sub" }, why)));
  const main = h("main", { class: "ct-cards" }, h("div", { class: "ct-column" }, card("curves"), card("plane")),
    ["zones", "features", "difference", "coefficient"].map(card), D.heads && ["segmentation", "iou"].map(card),
    D.learnt.length > 0 && card("learnt"), card("words"), measuring, card("information"), card("outliers"),
    D.benchmark && card("benchmark"));
  const first = ["curves", "plane", "zones"], later = Object.keys(cards).filter(name => !first.includes(name));
  const lines = texts => texts.map(text => h("p", {}, text)), n = D.notes.length;
  const notes = n > 0 && h("details", {}, h("summary", {}, `${n} note${n > 1 ? "s" : ""} on the images`), lines(D.notes));
  root.className = "ct-lab";
  root.replaceChildren(header, main, h("footer", { class: "ct-foot" }, notes, lines(D.foot)), tip);
  const takes_keys = root.querySelectorAll("button, input, select, [tabindex]");
  for (const node of takes_keys) node.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take them

  // ---- from a move to a picture: the first screen in the next frame, all others when the moves rest
  function draw(name) {
    const card = cards[name], there = !["information", "outliers"].includes(name) || link.figures[name];
    if (!card) return;
    card.node.hidden = !visible(name) || !there;
    if (!card.node.hidden) VIEWS[name](card);
  }
  function wrong() { // the sentence that Python would say of these cut-offs
    const [low, high] = S.cuts, why = D.wrong[S.filter] || {}, text = low >= high ? why.equal : low >= why.top ? why.above : null;
    return text?.replace(/\{(\w+)\}/g, (_, name) => ({ low, high, width: (high - low) / 2 })[name]);
  }
  function set(values, quiet) { // what a control, a preset, a click or Python says
    const moved = Object.keys(values).filter(name => !same(values[name], S[name]));
    if (!moved.length) return;
    Object.assign(S, values);
    if (D.benchmark && !(S.baseline in D.benchmark[S.experiment])) {
      S.baseline = Object.keys(D.benchmark[S.experiment])[0];
      moved.push("baseline");
    }
    if (!quiet) moved.forEach(name => untold.add(name));
    refresh();
  }
  function refresh() {
    const why = wrong(), [low, high] = S.cuts, now = { filter: S.filter, low, high, order: S.order, dc: S.keep_dc };
    if (!why && !same(now, band)) {
      band = now;
      refiltered = true;
    }
    say(why);
    frame ||= requestAnimationFrame(() => {
      for (const name of first) if (refiltered || name !== "plane") draw(name); // the plane shows the filter alone
      controls.forEach(sync => sync());
      seen();
      tell_all();
      frame = 0;
      refiltered = false;
    });
    clearTimeout(rest);
    rest = setTimeout(settle, 90);
  }
  function tell_all() { // the other side hears of a frame's moves at once
    if (untold.size) link.told(Object.fromEntries([...untold].map(name => [name, S[name]])));
    untold.clear();
  }
  function seen() { // what has no use at the moment
    header.querySelector("[data-of=order]").hidden = S.filter !== "butterworth";
    measuring.hidden = !visible("measure");
  }
  function settle() {
    later.forEach(draw);
    link.settled?.(S);
    const key = question(), wanted = link.live && D.heads && visible("segmentation") && !wrong();
    if (wanted && !answers.has(key) && key !== asked) link.ask({ ask: "segmentation", key: asked = key, state: S });
  }
  function say(why, text = link.said?.() || D.about) {
    about.classList.toggle("ct-wrong", !!why);
    about.textContent = why || text;
  }

  // ---- what leaves the lab: pictures, words
  function picture(card) { // one SVG of all that a card shows, on white
    const at = card.body.getBoundingClientRect(), width = Math.round(at.width), height = Math.round(at.height) + 34, color = "#1c1e21";
    const place = r => ({ x: r.left - at.left, y: r.top - at.top + 34, width: r.width, height: r.height });
    const all = (what, make) => [...card.body.querySelectorAll(what)].map(node => [node, place(node.getBoundingClientRect())])
      .filter(([, r]) => r.width).map(([node, r]) => make(node, r));
    const copied = (node, r) => {
      const copy = node.cloneNode(true);
      for (const [name, v] of Object.entries(r)) copy.setAttribute(name, v);
      return copy;
    };
    const pixelated = { preserveAspectRatio: "none", style: "image-rendering:pixelated" };
    const whole = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, color, fill: color, "font-family": "system-ui, sans-serif" },
      box(0, 0, width, height, { fill: "#fff" }), label(8, 22, card.title.textContent, { "font-size": 16, "font-weight": 600 }),
      all("canvas, img", (node, r) => s("image", { ...r, ...pixelated, href: pixels(node) })), all("svg", copied),
      all("figcaption", (node, r) => label(r.x + r.width / 2, r.y + 13, node.textContent, middle)));
    return new XMLSerializer().serializeToString(whole).replaceAll("var(--ct-card, #fff)", "#fff");
  }
  function pixels(node, width = node.naturalWidth ?? node.width, height = node.naturalHeight ?? node.height) { // a data URI
    const canvas = h("canvas", { width, height });
    canvas.getContext("2d").drawImage(node, 0, 0, width, height);
    return canvas.toDataURL();
  }
  const data_uri = svg => "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
  async function raster(svg, scale = 2) {
    const image = new Image();
    image.src = data_uri(svg);
    await image.decode();
    return pixels(image, image.width * scale, image.height * scale);
  }
  async function saved(card, kind) { // a data URI
    const { plotly } = card, before = dark;
    const sized = plotly && { format: kind.toLowerCase(), scale: 2, width: plotly.offsetWidth, height: plotly.offsetHeight };
    if (plotly) return (await link.load()).toImage(plotly, sized);
    const redrawn = now => { if (before) { dark = now; draw(card.name); } };
    redrawn(false);
    const svg = picture(card);
    redrawn(true);
    return kind === "SVG" ? data_uri(svg) : raster(svg);
  }
  async function download(card, kind) {
    h("a", { href: await saved(card, kind), download: `frequency_lab_${card.name}.${kind.toLowerCase()}` }).click();
  }
  async function copy(text, at) {
    try { await navigator.clipboard.writeText(text); }
    catch { const area = h("textarea"); area.value = text; root.append(area); area.select(); document.execCommand("copy"); area.remove(); }
    at.textContent = "Copied";
    setTimeout(() => { at.textContent = "Copy"; }, 1500);
  }

  // ---- a folder that is dropped on the lab
  async function files_of(entry, folder = "") { // [folder, file], folders read to their end
    if (entry.isFile) return [[folder, await new Promise((done, no) => entry.file(done, no))]];
    const reader = entry.createReader(), found = [];
    for (let some; (some = await new Promise((done, no) => reader.readEntries(done, no))).length;) found.push(...some);
    return (await Promise.all(found.map(one => files_of(one, entry.name)))).flat();
  }
  root.ondragover = e => {
    if (!link.live || !e.dataTransfer.types.includes("Files")) return;
    e.preventDefault();
    root.classList.add("ct-over");
  };
  root.ondragleave = () => root.classList.remove("ct-over");
  root.ondrop = async e => {
    root.classList.remove("ct-over");
    if (!link.live) return;
    e.preventDefault();
    const entries = [...e.dataTransfer.items].map(item => item.webkitGetAsEntry()).filter(Boolean);
    const found = (await Promise.all(entries.map(entry => files_of(entry, "dropped")))).flat();
    for (const [i, [folder, file]] of found.entries()) {
      say("", `Sending ${i + 1} of ${found.length} files …`);
      link.ask({ ask: "file", folder, name: file.name, left: found.length - 1 - i }, [await file.arrayBuffer()]);
    }
  };

  // ---- host: width, theme, end
  const watch = new ResizeObserver(some => {
    if (!on_paper.matches) root.style.setProperty("--ct-width", root.clientWidth); // paper gets the same, smaller
    for (const { target, contentRect } of some) {
      const card = Object.values(cards).find(one => one.body === target), width = Math.floor(contentRect.width);
      if (card && width && width !== card.width && !on_paper.matches) { card.width = width; draw(card.name); }
    }
  });
  const theme = () => {
    const now = is_dark();
    root.dataset.theme = now ? "dark" : "light";
    if (now !== dark) { dark = now; Object.keys(cards).forEach(draw); }
  };
  const media = matchMedia("(prefers-color-scheme: dark)"), hosts = new MutationObserver(theme);
  for (const node of [document.documentElement, document.body]) hosts.observe(node, { attributes: true });
  for (const one of [media, on_paper]) one.addEventListener("change", theme);
  theme();
  for (const one of Object.values(cards)) { one.width = Math.floor(one.body.clientWidth) || one.width; watch.observe(one.body); }
  refresh();
  return {
    D, S, F, set, draw, cards, words, say, gain: () => [...F.gain(band)], shares: () => F.shares(band), curve: () => F.curve(band), saved,
    async pictures(kinds) { // name of a file -> base64, of all that is shown
      await new Promise(done => setTimeout(done, 600)); // all is drawn, at the width of this page
      const out = {};
      for (const card of Object.values(cards).filter(one => one.body.offsetWidth && !one.words)) for (const kind of kinds) {
        const [head, data] = (await saved(card, kind.toUpperCase())).split(/,(.*)/s);
        out[`${card.name}.${kind}`] = head.endsWith("base64") ? data : btoa(unescape(data));
      }
      return out;
    },
    change: share => [...F.change(looked(), against(), share)], profile: plane => F.profile(plane), energyOf: F.energyOf,
    answer(key, part) {
      answers.set(key, { ...answers.get(key), ...part });
      if (key === question()) ["segmentation", "iou"].forEach(draw);
    },
    busy(yes) { measure.disabled = yes; },
    close() {
      for (const one of [watch, hosts]) one.disconnect();
      for (const one of [media, on_paper]) one.removeEventListener("change", theme);
      clearInterval(ticking);
      clearTimeout(rest);
      cancelAnimationFrame(frame);
    },
  };
}
const on_paper = matchMedia("print");
function is_dark() { // by what JupyterLab, VS Code and Colab write into the page, or the system's wish; paper is white
  if (on_paper.matches) return false;
  const { body, documentElement: html } = document, light = body.dataset.jpThemeLight;
  if (light) return light === "false";
  if (body.dataset.vscodeThemeKind) return !body.dataset.vscodeThemeKind.endsWith("light");
  const said = html.getAttribute("theme") || html.dataset.theme;
  return said ? said === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
async function unpacked(view) { // plotly.js, from gzip; once for all labs
  const text = await new Response(new Blob([view]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(h("script", {}, `(function (define, module, exports) {${text}\n}).call(window)`));
  return window.Plotly;
}

// ---- the two hosts
export default { // Jupyter: state and data are traits, the model is asked by messages
  render({ model, el }) {
    let lab, plotly;
    const link = {
      live: true, get figures() { return model.get("_figures"); }, said: () => model.get("_said").text,
      told(values) { model.set(values); model.save_changes(); },
      ask: (content, buffers) => model.send(content, undefined, buffers),
      load: () => plotly ||= window.Plotly ?? new Promise(done => { link.plotly = done; link.ask({ ask: "plotly" }); }),
    };
    const start = () => {
      lab?.close();
      const D = model.get("_data"), root = h("div");
      el.replaceChildren(root);
      lab = open(root, D, Object.fromEntries(D.names.map(name => [name, model.get(name)])), link);
      said();
    };
    const said = () => {
      const { text, wrong, busy } = model.get("_said");
      lab.say(wrong ? text : "", text || undefined);
      lab.busy(!!busy);
    };
    const heard = {
      plotly: (_, [packed]) => link.plotly(unpacked(packed)),
      segmentation: ({ key, kind, ...part }) => lab.answer(key, part),
    };
    const hear = (content, buffers) => heard[content.kind]?.(content, buffers);
    const moves = model.get("_data").names.map(name => [`change:${name}`, () => lab.set({ [name]: model.get(name) }, true)]);
    const measured = () => ["information", "outliers"].forEach(lab.draw);
    const events = [...moves, ["msg:custom", hear], ["change:_data", start], ["change:_said", said], ["change:_figures", measured]];
    for (const [name, act] of events) model.on(name, act);
    start();
    return () => { for (const [name, act] of events) model.off(name, act); lab.close(); };
  },
};
export async function page(root) { // a file: state in the address, nothing to ask
  const bytes = v => new DataView(Uint8Array.from(atob(v.base64), c => c.charCodeAt(0)).buffer);
  const held = id => JSON.parse(document.getElementById(id).textContent, (_, v) => v?.base64 === undefined ? v : bytes(v));
  const D = held("data"), save = new URLSearchParams(location.search).get("save");
  let plotly;
  const read = () => {
    try {
      const said = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
      return Object.fromEntries(Object.entries(said).filter(([name, v]) => fits(D, name, v)));
    } catch { return {}; }
  };
  const link = {
    live: false, figures: D.figures, told() {}, ask() {}, load: () => plotly ||= unpacked(held("plotly")),
    settled(S) {
      const away = Object.fromEntries(Object.entries(S).filter(([name, v]) => !same(v, D.state[name])));
      const hash = Object.keys(away).length ? "#" + encodeURIComponent(JSON.stringify(away)) : "";
      if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname + location.search);
    },
  };
  if (save) document.body.classList.add("ct-save");
  const lab = open(root, D, { ...D.state, ...read() }, link);
  window.addEventListener("hashchange", () => lab.set({ ...D.state, ...read() }));
  document.body.dataset.ready = "yes";
  if (save) document.body.append(h("pre", { id: "pictures" }, JSON.stringify(await lab.pictures(save.split(",").slice(1)))));
  return lab;
}
function fits(D, name, v) { // whether an address says what this lab has
  if (!Object.hasOwn(D.state, name) || Array.isArray(v) !== Array.isArray(D.state[name])) return false;
  const all = [v].flat(), options = name === "keep_dc" ? [false, true] : D.choices[name];
  if (options) return all.every(one => options.includes(one)) && (all.length > 0 || name !== "domains");
  const ranges = name === "coefficient" ? D.grid.map(n => [0, n - 1]) : [D.state[name]].flat().map(() => D.ranges[name] ?? []);
  const inside = (x, [low, high]) => x >= low && x <= high && (name === "cuts" ? typeof x === "number" : Number.isInteger(x));
  return all.length === ranges.length && all.every((x, i) => inside(x, ranges[i]));
}
